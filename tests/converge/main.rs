//! The heart in a world of its own: whatever happens, nothing in use is stopped, nothing is overdone, and once the faults
//! are over every Function gets where its spec says, and stays there.

#![allow(
    clippy::unwrap_used,
    reason = "a simulation that breaks fails its test"
)]

mod simulation;

use proptest::prelude::*;
use simulation::{Simulation, Step};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1_u64..60_000).prop_map(Step::Pass),
        4 => (1_u64..900).prop_map(Step::Pass),
        12 => (1_u64..40_000).prop_map(Step::Call),
        2 => any::<usize>().prop_map(Step::Leave),
        3 => (0_u8..4, 0_u32..4, 1_u32..4, 1_u32..4).prop_map(|(revision, min, more, concurrency)| Step::Edit {
            revision,
            min,
            max: min.max(1) + more - 1,
            concurrency,
        }),
        1 => Just(Step::Block),
        2 => any::<usize>().prop_map(Step::Crash),
        1 => any::<usize>().prop_map(Step::Condemn),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, crashes)| Step::Break(n, crashes)),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(builds, starts)| Step::Faults { builds, starts }),
        2 => (0_u32..8).prop_map(Step::Memory),
        1 => any::<bool>().prop_map(Step::Pressure),
        1 => Just(Step::LoseImages),
        1 => any::<bool>().prop_map(Step::Race),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_function_gets_where_its_spec_says(
        steps in prop::collection::vec(step(), 1..60),
        revision in 0_u8..4,
        min in 0_u32..3,
    ) {
        let mut simulation = Simulation::new();
        for step in &steps {
            simulation.take(step);
        }
        simulation.end_faults();
        simulation.take(&Step::Edit { revision, min, max: 4, concurrency: 2 });
        simulation.settle_down();
        simulation.assert_as_desired();
    }

    #[test]
    fn a_deleted_function_leaves_nothing_behind(steps in prop::collection::vec(step(), 1..40)) {
        let mut simulation = Simulation::new();
        for step in &steps {
            simulation.take(step);
        }
        simulation.delete();
        simulation.settle_down();
        simulation.assert_gone();
    }
}

#[test]
fn a_function_without_calls_is_proven_once_and_goes_to_zero() {
    let mut simulation = Simulation::new();
    simulation.take(&Step::Edit {
        revision: 0,
        min: 0,
        max: 4,
        concurrency: 2,
    });
    simulation.settle_down();
    simulation.assert_as_desired();
    assert_eq!(simulation.started(), 1);
}

#[test]
fn a_function_that_cannot_start_is_given_up() {
    let mut simulation = Simulation::new();
    simulation.take(&Step::Faults {
        builds: false,
        starts: true,
    });
    simulation.take(&Step::Edit {
        revision: 0,
        min: 1,
        max: 4,
        concurrency: 2,
    });
    simulation.settle_down();
    assert_eq!(simulation.started(), faas::plan::ATTEMPTS);
}

#[test]
fn a_new_revision_that_cannot_start_is_given_up_while_the_old_one_serves() {
    let mut simulation = Simulation::new();
    simulation.take(&Step::Edit {
        revision: 0,
        min: 1,
        max: 4,
        concurrency: 2,
    });
    simulation.take(&Step::Pass(60_000));
    simulation.take(&Step::Faults {
        builds: false,
        starts: true,
    });
    simulation.take(&Step::Edit {
        revision: 1,
        min: 1,
        max: 4,
        concurrency: 2,
    });
    simulation.settle_down();
    assert_eq!(simulation.started(), 1 + faas::plan::ATTEMPTS);
}
