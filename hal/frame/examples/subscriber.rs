//! Reads frames and prints a line for each: `subscriber SOCKET [COUNT]`.
//!
//! A line is: sequence, format, size, the sum of the first plane's bytes, microseconds from capture to here. Frames that
//! the camera took back while they were read are not printed.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::path::Path;

use mos_frame::{Received, Subscriber, Wish, sys};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let socket = args.next().ok_or("subscriber SOCKET [COUNT]")?;
    let mut left: u64 = args.next().map_or(Ok(u64::MAX), |count| count.parse())?;
    let mut subscriber = Subscriber::connect(Path::new(&socket), Wish::default())?;
    let mut luma = Vec::new();
    while left > 0 {
        let Some(Received::Frame(frame)) = subscriber.next(None)? else { continue };
        let latency = sys::monotonic().saturating_sub(frame.captured()) / 1000;
        let intact = subscriber.copy_plane(&frame, 0, &mut luma)?;
        if intact {
            let sum: u64 = luma.iter().map(|byte| u64::from(*byte)).sum();
            let picture = frame.picture();
            let (sequence, width, height) = (frame.sequence(), picture.width, picture.height);
            println!("{sequence} {} {width}x{height} {sum} {latency}", picture.fourcc);
            left -= 1;
        }
        subscriber.release(frame)?;
    }
    Ok(())
}
