//! A picture of a 1080p keyframe through the API, against a warm decoder without any API and an ffmpeg process.

use serde_json::json;

use crate::clip::one_segment;
use crate::peers::{WarmDecoder, keyframe, milliseconds, run as program};
use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 200;

pub(crate) fn run(table: &mut Table) {
    let (setup, id, file) = one_segment("snapshot");
    let daemon = setup.start();
    let mut connection = daemon.client.connect();
    let path = format!("/v1/segments/{id}/snapshot");
    let picture = scratch("snapshot-peers").join("picture.jpg");
    let (mut ours, mut ffmpeg, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let decoder = WarmDecoder::start();
    let mut cold = 0.0;
    for round in 0..=ROUNDS {
        let offset = (round * 7 % 59) as f64;
        let body = json!({"keyframe_offset": offset});
        let mut answer = None;
        let took = milliseconds(|| answer = Some(connection.request("POST", &path, Some(&body))));
        let _ = answer.unwrap().ok();
        // The first one starts the decoder.
        if round == 0 {
            cold = took;
        } else {
            ours.push(took);
        }
        if round % 10 == 1 {
            let offset = format!("{offset}");
            let (file, picture) = (file.to_str().unwrap(), picture.to_str().unwrap());
            let args = ["-nostdin", "-v", "error", "-y", "-ss", &offset, "-i", file, "-frames:v", "1", picture];
            ffmpeg.push(milliseconds(|| program("ffmpeg", &args)));
            let keyframe = keyframe(file.as_ref(), (round * 7 % 59) as f64);
            // The first one of these finds a cold cache.
            let _ = decoder.picture(&keyframe, 2 * round as u64);
            bare.push(milliseconds(|| assert!(decoder.picture(&keyframe, 2 * round as u64 + 1) > 0)));
        }
    }
    for (name, percent, limit) in [("p50", 50.0, 10.0), ("p95", 95.0, 12.0)] {
        let ours = percentile(&mut ours, percent);
        let work = format!("snapshot 1080p, warm, {name}");
        table.within(&work, "ms", ours, Some(("avdec_h264 + jpegenc, warm", percentile(&mut bare, percent))), limit);
        table.within(&work, "ms", ours, Some(("ffmpeg process", percentile(&mut ffmpeg, percent))), limit);
    }
    eprintln!("the first snapshot, which starts the decoder, took {cold:.0} ms");
}
