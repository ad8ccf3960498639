//! What is known of the turns to come.

use std::time::{Duration, Instant};

use super::super::pace::Pace;

#[test]
fn turns_that_were_seen_tell_of_those_to_come() {
    let begin = Instant::now();
    let at = |ms| begin + Duration::from_millis(ms);
    let mut pace = Pace::default();
    pace.count(0, at(0));
    pace.count(1, at(500));
    for turn in 1..10 {
        pace.count(1, at(500 + turn * 100));
        assert_eq!(pace.takes(1), None, "too soon");
    }
    pace.count(1, at(1500));
    assert_eq!(pace.takes(1), Some(Duration::from_millis(100)));
    assert_eq!(pace.takes(50), Some(Duration::from_secs(5)));
    assert_eq!(pace.takes(0), Some(Duration::ZERO));

    pace.count(4, at(2500));
    assert_eq!(
        pace.takes(1),
        Some(Duration::from_millis(250)),
        "slower now"
    );
    pace.count(0, at(9000));
    assert_eq!(
        pace.takes(1),
        Some(Duration::from_millis(250)),
        "no turn came"
    );
    pace.count(1, at(10_500));
    assert_eq!(pace.takes(1), Some(Duration::from_secs(8)));
    pace.forget();
    assert_eq!(pace.takes(1), None);
}
