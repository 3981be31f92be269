#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const S: i64 = 1_000_000_000;
const PACE: Pace = Pace { down: Duration::from_secs(20), up: Duration::from_mins(1) };

/// Cabin and rear are coded here, the gate comes coded, road matters most.
const FLEET: [(&str, bool); 4] = [("cabin", true), ("rear", true), ("gate", false), ("road", true)];

fn members(lenses: &[(&str, bool)]) -> Vec<Member> {
    let member =
        |(lens, coded): &(&str, bool)| Member { lens: LensId::new(lens).unwrap(), coded: *coded, opening: false };
    lenses.iter().map(member).collect()
}

struct Rig {
    ladder: Ladder,
    now: Mono,
    lenses: Vec<Member>,
}

impl Rig {
    fn new(lenses: &[(&str, bool)]) -> Self {
        Self { ladder: Ladder::new(PACE), now: Mono(7 * S), lenses: members(lenses) }
    }

    fn second(&mut self, heat: Heat, encoding: Encoding) -> Vec<(Step, Option<Reason>)> {
        self.now = Mono(self.now.0 + S);
        self.ladder.step(&Pressure { lenses: &self.lenses, heat, encoding }, self.now)
    }

    /// The steps after so many seconds, as first letters.
    fn heat(&mut self, heat: Heat, seconds: u32) -> String {
        show(&(0..seconds).map(|_| self.second(heat, Encoding::Suffices)).last().unwrap_or_default())
    }

    fn encoder(&mut self, encoding: Encoding, seconds: u32) -> String {
        show(&(0..seconds).map(|_| self.second(Heat::Cool, encoding)).last().unwrap_or_default())
    }
}

fn show(steps: &[(Step, Option<Reason>)]) -> String {
    steps.iter().filter_map(|(step, _)| step.name().chars().next()).collect()
}

#[test]
fn d1_d4_warmth_goes_down_rung_by_rung_and_leaves_the_last_lens_reduced() {
    let mut rig = Rig::new(&FLEET);
    assert_eq!(rig.heat(Heat::Warm, 20), "ffff", "not sooner than step_down");
    let down: Vec<String> = (0..7).map(|_| rig.heat(Heat::Warm, 20)).collect();
    assert_eq!(down, ["rfff", "sfff", "srff", "ssff", "ssfr", "ssfr", "ssfr"], "what comes coded is left alone");
    assert_eq!(rig.second(Heat::Warm, Encoding::Suffices)[0], (Step::Stopped, Some(Reason::Heat)));
}

#[test]
fn d1_d4_heat_is_faster_and_at_its_end_all_are_stopped() {
    let mut rig = Rig::new(&FLEET);
    assert_eq!(rig.heat(Heat::Hot, 5), "ffff");
    let down: Vec<String> = (0..8).map(|_| rig.heat(Heat::Hot, 5)).collect();
    assert_eq!(down, ["rfff", "sfff", "srff", "ssff", "ssfr", "sssr", "ssss", "ssss"]);
    let only = Rig::new(&[("gate", false)]).heat(Heat::Hot, 60);
    assert_eq!((only.as_str(), Rig::new(&[]).heat(Heat::Hot, 60).as_str()), ("s", ""));
    assert_eq!(Rig::new(&[("a", false), ("b", false)]).heat(Heat::Warm, 600), "ff");
}

#[test]
fn d1_d2_it_comes_back_in_reverse_order_and_between_the_thresholds_nothing_moves() {
    let mut rig = Rig::new(&FLEET);
    assert_eq!(rig.heat(Heat::Warm, 61), "srff");
    assert_eq!(rig.heat(Heat::Between, 3600), "srff");
    assert_eq!(rig.heat(Heat::Cool, 60), "srff", "not sooner than step_up");
    let up: Vec<String> = (0..4).map(|_| rig.heat(Heat::Cool, 60)).collect();
    assert_eq!(up, ["sfff", "rfff", "ffff", "ffff"]);
    // A moment in between begins the time anew, in both directions.
    let mut rig = Rig::new(&FLEET);
    rig.heat(Heat::Warm, 19);
    rig.heat(Heat::Between, 1);
    assert_eq!(rig.heat(Heat::Warm, 20), "ffff");
    assert_eq!(rig.heat(Heat::Warm, 1), "rfff");
    rig.heat(Heat::Cool, 59);
    rig.heat(Heat::Between, 1);
    assert_eq!(rig.heat(Heat::Cool, 60), "rfff");
    assert_eq!(rig.heat(Heat::Cool, 1), "ffff");
}

#[test]
fn d3_what_relapses_waits_twice_as_long_and_is_forgiven_after_an_hour() {
    let mut rig = Rig::new(&FLEET);
    let comes_back_after = |rig: &mut Rig| {
        while rig.heat(Heat::Warm, 1) == "ffff" {}
        (1..10_000).find(|_| rig.heat(Heat::Cool, 1) == "ffff")
    };
    let waits: Vec<_> = (0..8).map(|_| comes_back_after(&mut rig).unwrap_or(0)).collect();
    assert_eq!(waits, [61, 121, 241, 481, 961, 1921, 3601, 3601]);
    rig.heat(Heat::Cool, 2 * 3601);
    assert_eq!(comes_back_after(&mut rig), Some(61));
}

#[test]
fn an_encoder_that_does_not_suffice_is_helped_by_those_that_matter_less() {
    for (lacking, lowest) in [(0, "rfff"), (1, "srff"), (3, "ssfr")] {
        let mut rig = Rig::new(&FLEET);
        assert_eq!(rig.encoder(Encoding::Lacks(lacking), 600), lowest);
        assert_eq!(rig.encoder(Encoding::Between, 600), lowest);
        assert_eq!(rig.encoder(Encoding::Suffices, 6000), "ffff");
    }
    let mut rig = Rig::new(&FLEET);
    rig.encoder(Encoding::Lacks(1), 61);
    assert_eq!(rig.second(Heat::Cool, Encoding::Between)[1], (Step::Reduced, Some(Reason::Encoder)));
}

#[test]
fn the_lower_of_both_ladders_counts() {
    let mut rig = Rig::new(&FLEET);
    for _ in 0..45 {
        rig.second(Heat::Warm, Encoding::Lacks(1));
    }
    let both = rig.second(Heat::Warm, Encoding::Between);
    assert_eq!((show(&both), both[0].1), ("sfff".into(), Some(Reason::Heat)));
    // The heat goes, the encoder stays.
    for _ in 0..300 {
        rig.second(Heat::Cool, Encoding::Between);
    }
    assert_eq!(rig.second(Heat::Cool, Encoding::Between)[0], (Step::Stopped, Some(Reason::Encoder)));
}

#[test]
fn d5_lenses_that_come_and_go_move_nobody_who_matters_more() {
    let mut rig = Rig::new(&FLEET);
    assert_eq!(rig.heat(Heat::Warm, 41), "sfff");
    // A user stops the cabin: nobody else has to go for it at once.
    rig.lenses = members(&FLEET[1..]);
    assert_eq!(rig.heat(Heat::Warm, 1), "fff");
    assert_eq!(rig.heat(Heat::Warm, 20), "rff");
    // What is added and matters less goes first.
    rig.lenses = members(&[&[("door", true)], &FLEET[1..]].concat());
    assert_eq!(rig.heat(Heat::Warm, 1), "srff");
    rig.lenses = members(&FLEET[3..]);
    assert_eq!(rig.heat(Heat::Between, 1), "f");
    rig.lenses = Vec::new();
    assert_eq!(rig.heat(Heat::Hot, 60), "");
}

#[test]
fn d6_a_lens_that_breaks_off_keeps_its_rung_and_gives_it_back_in_its_turn() {
    let mut rig = Rig::new(&FLEET);
    let opening = |rig: &mut Rig, lens: usize, opening| rig.lenses[lens].opening = opening;
    assert_eq!(rig.heat(Heat::Warm, 61), "srff");
    opening(&mut rig, 1, true);
    assert_eq!(rig.heat(Heat::Between, 2), "srff");
    opening(&mut rig, 1, false);
    assert_eq!(rig.heat(Heat::Between, 3600), "srff", "no slip out of it");
    // It is not asked for more while it has nothing, and others are.
    opening(&mut rig, 1, true);
    assert_eq!(rig.heat(Heat::Warm, 600), "srfr");
    assert_eq!(rig.heat(Heat::Hot, 600), "srss");
    let up: Vec<String> = (0..6).map(|_| rig.heat(Heat::Cool, 60)).collect();
    assert_eq!(up, ["srss", "srsr", "srfr", "srff", "sfff", "rfff"], "the way back is the same");
    opening(&mut rig, 1, false);
    assert_eq!(rig.heat(Heat::Between, 1), "rfff", "its turn has come meanwhile");
    // One that matters more than all that deliver, and the encoder's ladder.
    let mut rig = Rig::new(&FLEET);
    assert_eq!(rig.encoder(Encoding::Lacks(3), 600), "ssfr");
    opening(&mut rig, 3, true);
    assert_eq!(rig.encoder(Encoding::Between, 2), "ssfr");
    opening(&mut rig, 3, false);
    assert_eq!(rig.encoder(Encoding::Between, 600), "ssfr");
    // What is opened for the first time takes nothing.
    let mut rig = Rig::new(&FLEET);
    (0..4).for_each(|lens| opening(&mut rig, lens, true));
    assert_eq!(rig.heat(Heat::Hot, 600), "ffff");
}

proptest! {
    /// D1 and D4, whatever comes.
    #[test]
    fn steps_are_single_slow_and_in_order(
        pressures in prop::collection::vec((0usize..4, 0usize..6, 1u32..200), 1..60),
        coded in prop::collection::vec(any::<bool>(), 1..6),
    ) {
        let mut ladder = Ladder::new(PACE);
        let mut now = Mono(0);
        let mut before = 0;
        let last = coded.len() - 1;
        let named = |(at, coded): (usize, &bool)| {
            Member { lens: LensId::new(&format!("l{at}")).unwrap(), coded: *coded, opening: false }
        };
        let lenses: Vec<Member> = coded.iter().enumerate().map(named).collect();
        for (heat, encoding, seconds) in pressures {
            let heat = [Heat::Cool, Heat::Between, Heat::Warm, Heat::Hot][heat];
            let encoding = match encoding {
                0 => Encoding::Suffices,
                1 => Encoding::Between,
                n => Encoding::Lacks(n - 2),
            };
            for _ in 0..seconds {
                now = Mono(now.0 + S);
                let steps = ladder.step(&Pressure { lenses: &lenses, heat, encoding }, now);
                let depth: usize = steps.iter().map(|(step, _)| *step as usize).sum();
                // At most one rung of each ladder; one that comes coded has one rung for two steps.
                prop_assert!(depth.abs_diff(before) <= 4);
                before = depth;
                if steps[last].0 == Step::Stopped {
                    prop_assert!(steps.iter().all(|(step, _)| *step == Step::Stopped), "{:?}", steps);
                    prop_assert!(steps[last].1 == Some(Reason::Heat));
                }
                for (at, (step, reason)) in steps.iter().enumerate() {
                    prop_assert_eq!(reason.is_some(), *step != Step::Full);
                    prop_assert!(coded[at] || *step != Step::Reduced);
                }
            }
        }
    }
}
