//! What was judged of chains, so that the next segment of a run does not cost it again: a day of footage is judged in a time that
//! grows with the day, not with its square.
//!
//! Promise (K1): the verdict is the one that the segment gets alone. A part is taken as judged only while its file holds the very same
//! text, and that it hangs together with those before it only while the note of what went is the same. What is changed in a chain
//! behind the back of one who judges it may be told by the next who does.
//!
//! Memory: a few parts, and a line for each part of a run. Whoever judges footage of two archives keeps one of these for each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::chain::{Chain, part_name};
use super::digest::Hash;
use super::joints::{Break, Gone, Traced, gone_name, trace};
use super::verify::ByName;

/// Parts that are kept: names of segments in the order of their letters go to and fro between as many as their numbers have digits.
const RECENT: usize = 8;

/// What was judged of the chains of an archive.
#[derive(Default)]
pub struct Judged {
    /// By lens, run and text; the last used at the end.
    parts: VecDeque<((String, u32, Hash), Arc<Chain>)>,
    /// By lens, run and the key that signed.
    runs: HashMap<(String, u32, String), Run>,
    #[cfg(test)]
    pub(super) count: usize,
}

/// How the parts of a run hang together.
struct Run {
    /// The note of what went, as text.
    note: Hash,
    gone: Gone,
    traced: Traced,
}

impl Judged {
    /// A part of a chain, by the text of its file.
    pub(super) fn part(&mut self, (lens, run): (&str, u32), text: &[u8]) -> Arc<Chain> {
        let of = (lens.to_owned(), run, Hash::of(&[text]));
        let known = self.parts.iter().position(|(part, _)| *part == of).and_then(|at| self.parts.remove(at));
        let (of, chain) = known.unwrap_or_else(|| {
            #[cfg(test)]
            {
                self.count += 1;
            }
            (of, Arc::new(Chain::read(lens, run, text)))
        });
        self.parts.push_back((of, chain.clone()));
        if self.parts.len() > RECENT {
            self.parts.pop_front();
        }
        chain
    }

    /// Whether a part, whose first link follows `before`, hangs together with those before it, back to where the run begins.
    /// `key` signed it.
    pub(super) fn hangs_together(
        &mut self,
        whose: (&str, u32),
        key: &str,
        (part, before): (u32, Hash),
        beside: &ByName<'_>,
    ) -> Result<(), Break> {
        let (lens, run) = whose;
        let note = beside(&gone_name(run)).unwrap_or_default();
        let (of, is) = ((lens.to_owned(), run, key.to_owned()), Hash::of(&[&note]));
        let known = self.runs.remove(&of).filter(|known| known.note == is);
        let mut known = known.unwrap_or_else(|| {
            let gone = Gone::read(lens, run, &note, key);
            Run { note: is, gone, traced: Traced::default() }
        });
        let read = |part| Ok(self.part(whose, &beside(&part_name(run, part))?));
        let joined = trace(whose, (part, before), &known.gone, &mut known.traced, read);
        self.runs.insert(of, known);
        joined
    }
}
