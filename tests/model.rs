//! The hand-out of instances below a checker of interleavings (shuttle): the very sources of `src/pool/desk.rs` and
//! `src/pool/slots.rs`, compiled here with what the checker controls in place of locks and channels. It stops every task at
//! each use of these, lets any other go on, and calls it a deadlock when nobody can.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is tests")]

// What the sources below call by these names.
use faas::{controller, function, plan, runtime};

#[path = "../src/pool"]
#[allow(dead_code, reason = "what only the product calls")]
mod pool {
    pub use faas::pool::{Instance, LeaseError, QueueFull, Route};

    pub mod desk;
    mod pace;
    pub mod slots;

    #[path = "../../tests/model/sync.rs"]
    mod sync;
}

#[path = "model/world.rs"]
mod world;

use std::sync::Arc;

use futures::StreamExt;
use shuttle::{
    future::{block_on, spawn},
    rand::{Rng, thread_rng},
    thread,
};

use self::world::{Ending, Patience, World};

/// Schedules that are tried of each kind.
const SCHEDULES: usize = 1500;
/// Tasks that are made to stop at the wrong moment, in schedules of the second kind.
const DEPTH: usize = 3;

/// Tries schedules at random, and such as bring out bugs that need few tasks to stop at the wrong moment.
fn check(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
    shuttle::check_pct(scenario, SCHEDULES, DEPTH);
}

/// Anything at any time. Whoever waits without end gets an instance in the end, because there is one.
#[test]
fn in_any_interleaving_calls_and_changes_keep_what_is_promised() {
    check(|| {
        let (world, _keys) = World::new();
        world.serve("a", 2);
        world.add("a1", "a");
        let mut tasks = Vec::new();
        for caller in 0..4 {
            let world = Arc::clone(&world);
            let patience = match thread_rng().gen_range(0..4) {
                looks @ 0..3 if caller > 0 => Patience::Looks(looks),
                _ => Patience::Endless,
            };
            let ending = [Ending::Good, Ending::Good, Ending::Broke, Ending::Condemned];
            let ending = ending[thread_rng().gen_range(0..ending.len())];
            tasks.push(spawn(async move { world.call(patience, ending).await }));
        }
        let watcher = Arc::clone(&world);
        let watcher = thread::spawn(move || (0..4).for_each(|_| watcher.look()));
        for _ in 0..5 {
            world.any_change();
        }
        // The end of the story, good for all who still wait.
        world.serve("c", 1);
        world.add("last", "c");
        for number in 0..tasks.len() {
            // Those that are condemned or broken by their calls leave no other.
            world.add(&format!("spare {number}"), "c");
        }
        for task in tasks {
            block_on(task).unwrap();
        }
        watcher.join().unwrap();
        world.is_at_rest();
    });
}

/// The smallest cases, in every interleaving that there is.
#[test]
fn a_turn_that_comes_while_its_caller_leaves_is_passed_on() {
    let scenario = || {
        let (world, _keys) = World::new();
        world.serve("a", 1);
        world.add("a1", "a");
        let lease = world.take();
        let [leaves, waits] = [(); 2].map(|()| world.queue_up());
        let leaver = thread::spawn(move || drop(leaves));
        world.use_up(lease, Ending::Good);
        drop(block_on(waits).unwrap());
        leaver.join().unwrap();
        world.is_at_rest();
    };
    shuttle::check_dfs(scenario, None);
    check(scenario);
}

#[test]
fn a_slot_that_comes_while_a_caller_asks_is_not_missed() {
    let scenario = || {
        let (world, _keys) = World::new();
        world.serve("a", 1);
        let adder = Arc::clone(&world);
        let adder = thread::spawn(move || adder.add("a1", "a"));
        let call = world.call(Patience::Endless, Ending::Good);
        block_on(call);
        adder.join().unwrap();
        world.is_at_rest();
    };
    shuttle::check_dfs(scenario, None);
    check(scenario);
}

/// Who waits is told once: that its turn has come, or that it is in vain.
#[test]
fn everyone_who_waits_is_told_once_however_an_end_and_a_refusal_meet() {
    check(|| {
        let (world, _keys) = World::new();
        world.serve("a", 1);
        world.add("a1", "a");
        let lease = world.take();
        let callers = [(); 3].map(|()| {
            let place = world.queue_up();
            thread::spawn(move || match block_on(place) {
                Ok(lease) => drop(lease),
                Err(error) => assert_eq!(error, world::in_vain()),
            })
        });
        let refuser = Arc::clone(&world);
        let refuser = thread::spawn(move || refuser.desk.refuse(&world::in_vain()));
        world.use_up(lease, Ending::Good);
        refuser.join().unwrap();
        for caller in callers {
            caller.join().unwrap();
        }
        world.is_at_rest();
    });
}

/// A controller that looks only when it is asked to ends every instance that is out of service and idle.
#[test]
fn the_controller_hears_of_every_instance_that_is_done() {
    check(|| {
        let (world, mut keys) = World::new();
        world.serve("a", 1);
        let calls = [Ending::Broke, Ending::Condemned, Ending::Good].map(|ending| {
            world.add(&format!("{ending:?}"), "a");
            let (world, lease) = (Arc::clone(&world), world.take());
            thread::spawn(move || world.use_up(lease, ending))
        });
        world.add("idle", "a");
        let controller = Arc::clone(&world);
        let controller = spawn(async move {
            // Without a turn for the last of them it waits for ever, which is a deadlock.
            while !controller.is_empty() {
                let key = keys.next().await.unwrap();
                controller.turns.begin(&key);
                controller.end_what_is_done();
            }
        });
        // All are drained. The route changes within a turn, which goes on to look.
        world.serve("b", 1);
        world.turns.request(world.desk.key());
        for call in calls {
            call.join().unwrap();
        }
        block_on(controller).unwrap();
        world.is_at_rest();
    });
}
