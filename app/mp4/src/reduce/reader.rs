//! The reduced bytes, read from any offset as if they were a file.

use std::io;
use std::sync::Arc;

use super::{Piece, Reduction};
use crate::read::ReadAt;

/// A reduced file that nobody wrote: an input and its plan.
#[derive(Clone, Debug)]
pub struct Reduced<R> {
    input: R,
    plan: Arc<Reduction>,
}

impl<R: ReadAt> Reduced<R> {
    /// `plan` must be that of `input`, which may not change while this lives.
    pub fn new(input: R, plan: Reduction) -> Self {
        Self { input, plan: Arc::new(plan) }
    }

    /// The plan.
    pub fn plan(&self) -> &Reduction {
        &self.plan
    }

    /// Its input.
    pub fn input(&self) -> &R {
        &self.input
    }
}

impl<R: ReadAt> ReadAt for Reduced<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let plan = &self.plan;
        let first = plan.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let mut done = 0;
        for (piece, start) in plan.pieces.iter().zip(&plan.starts).skip(first) {
            let skip = (offset + done as u64).saturating_sub(*start);
            let left = piece.len().saturating_sub(skip);
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len() - done);
            let Some(into) = buf.get_mut(done..done + want) else { break };
            match piece {
                Piece::Copy { offset, .. } => read_exactly(&self.input, offset + skip, into)?,
                Piece::Bytes(bytes) => {
                    let from = usize::try_from(skip).unwrap_or(usize::MAX);
                    if let Some(bytes) = bytes.get(from..).and_then(|b| b.get(..want)) {
                        into.copy_from_slice(bytes);
                    }
                }
            }
            done += want;
            if done == buf.len() {
                break;
            }
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.plan.len)
    }
}

fn read_exactly(input: &impl ReadAt, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match input.read_at(offset, buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                offset += n as u64;
                buf = buf.get_mut(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
