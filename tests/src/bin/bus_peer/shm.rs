//! GStreamer's `shmsink` and `shmsrc`, with pictures that lie in the sink's own memory from the start.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};

use super::{HEIGHT, SIZE, STOP, Seen, WIDTH, paced, stamp};

fn start(text: &str) -> gst::Pipeline {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    pipeline
}

pub(super) fn sink(socket: &str, fps: u32) {
    let caps = format!("video/x-raw,format=NV12,width={WIDTH},height={HEIGHT},framerate={fps}/1");
    let pipeline = start(&format!(
        "appsrc name=source is-live=true format=time max-buffers=1 block=true caps={caps} \
         ! shmsink socket-path={socket} wait-for-connection=false sync=false async=false shm-size=67108864"
    ));
    let source: AppSrc = pipeline.by_name("source").unwrap().downcast().unwrap();
    let caps: gst::Caps = caps.parse().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(source.static_pad("src").unwrap().peer_query(query.query_mut()));
    let mut params = query.allocation_params();
    let (allocator, params) = params.find_map(|(allocator, params)| Some((allocator?, params))).unwrap();
    paced(fps, |number| {
        // All of its memory is held by readers: shmsink would wait, so this frame is left out.
        let Ok(memory) = allocator.alloc(SIZE, Some(&params)) else { return };
        let mut buffer = gst::Buffer::new();
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.append_memory(memory);
            buffer.map_writable().unwrap()[..16].copy_from_slice(&stamp(number));
        }
        source.push_buffer(buffer).unwrap();
    });
    pipeline.set_state(gst::State::Null).unwrap();
}

pub(super) fn source(socket: &str) {
    let pipeline = start(&format!(
        "shmsrc socket-path={socket} is-live=true do-timestamp=true ! appsink name=sink sync=false async=false"
    ));
    let sink: AppSink = pipeline.by_name("sink").unwrap().downcast().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let taken = Arc::clone(&seen);
    let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let number = |at: usize| u64::from_le_bytes(map[at..at + 8].try_into().unwrap());
        taken.lock().unwrap().frame(number(0), number(8));
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    while !STOP.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    seen.lock().unwrap().print();
}
