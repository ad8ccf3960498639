//! The conditions of a Function: which there are, why they may hold, and how a new turn's view becomes the stored list.
//!
//! The rules are those of `metav1.Condition` and kstatus: times move only when a status flips, and `Reconciling` and
//! `Stalled` are never both True.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// Longest message of a condition, in bytes; a longer one is cut.
const MAX_MESSAGE: usize = 32 * 1024;

/// The conditions, in the order in which they are stored and shown.
#[derive(
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
)]
pub enum ConditionType {
    /// The current spec is served, or would be at the first call.
    Ready,
    /// Work is going on or will be tried again.
    Reconciling,
    /// Only an edit by the user helps.
    Stalled,
    /// The source can be read.
    SourceReady,
    /// The current source has its image.
    Built,
    /// Instances of the current revision can run.
    Deployed,
    /// Some revision answers, even when `Ready` is False.
    Serving,
    /// The cluster keeps `network: none`. Only where that is the cluster's to do.
    Isolated,
}

/// Status of a condition.
#[derive(Display, EnumString, IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// Why a condition has its status. These words are an API: condition reasons, event reasons, error codes, metric labels.
#[derive(
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
)]
pub enum Reason {
    // Under way.
    Accepted,
    Queued,
    Fetching,
    Building,
    Starting,
    Draining,
    Retrying,
    // Done.
    Ready,
    Idle,
    ScaledToZero,
    // Only an edit helps.
    InvalidSpec,
    DuplicateName,
    SourceNotFound,
    SourceInvalid,
    BuildFailed,
    BuildTimeout,
    ImageNotFound,
    StartFailed,
    StartTimeout,
    CrashLoop,
    #[strum(serialize = "OOMKilled")]
    OomKilled,
    SecretNotFound,
    NetworkRefused,
    // What the cluster is seen to do.
    Enforced,
    NotEnforced,
    Unproven,
    // May pass by itself.
    BuildInterrupted,
    PullFailed,
    RegistryUnavailable,
    RegistryRefused,
    NoSpace,
    NoCapacity,
    EngineUnavailable,
    SourceUnavailable,
    DrainTimeout,
    CleanupFailed,
}

/// One condition as a turn sees it; its generation and time are added by [`merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub condition: ConditionType,
    pub status: ConditionStatus,
    pub reason: Reason,
    pub message: String,
}

impl Wanted {
    /// A condition with a message for people.
    pub fn new(
        condition: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            condition,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// The whole of a Function in one word, from which `Ready`, `Reconciling` and `Stalled` follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
pub enum Overall {
    /// Nothing failed, work goes on: kstatus `InProgress`.
    Working,
    /// It failed and is tried again: kstatus `InProgress`.
    Retrying,
    /// The current spec is served: kstatus `Current`.
    Current,
    /// It failed and only an edit helps: kstatus `Failed`.
    Stalled,
}

impl Overall {
    /// `Ready`, and `Reconciling` or `Stalled` beside it where they hold.
    #[must_use]
    pub fn conditions(self, reason: Reason, message: &str) -> Vec<Wanted> {
        use ConditionStatus::{False, True, Unknown};
        let ready = |status| Wanted::new(ConditionType::Ready, status, reason, message);
        let beside = |condition, reason| Wanted::new(condition, True, reason, message);
        match self {
            Self::Working => vec![ready(Unknown), beside(ConditionType::Reconciling, reason)],
            Self::Retrying => vec![
                ready(False),
                beside(ConditionType::Reconciling, Reason::Retrying),
            ],
            Self::Current => vec![ready(True)],
            Self::Stalled => vec![ready(False), beside(ConditionType::Stalled, reason)],
        }
    }
}

/// The list to store: exactly the wanted conditions, in the order of [`ConditionType`].
///
/// A condition keeps its `lastTransitionTime` unless its status differs from the previous one. What is no longer wanted goes.
/// Of two of one type the later counts. `Stalled` yields to `Reconciling` when both are wanted True.
#[must_use]
pub fn merge(
    previous: &[Condition],
    wanted: Vec<Wanted>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut wanted = one_of_each(wanted);
    let holds =
        |condition| move |w: &Wanted| w.condition == condition && w.status == ConditionStatus::True;
    if wanted.iter().any(holds(ConditionType::Reconciling)) {
        wanted.retain(|w| !holds(ConditionType::Stalled)(w));
    }
    wanted
        .into_iter()
        .map(|wanted| stored(previous, wanted, generation, now))
        .collect()
}

fn one_of_each(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let by_type: std::collections::BTreeMap<_, _> =
        wanted.into_iter().map(|w| (w.condition, w)).collect();
    by_type.into_values().collect()
}

fn stored(previous: &[Condition], wanted: Wanted, generation: i64, now: Timestamp) -> Condition {
    let condition: &str = wanted.condition.into();
    let status: &str = wanted.status.into();
    let since = previous
        .iter()
        .find(|before| before.type_ == condition && before.status == status)
        .map_or_else(
            || Time(whole_seconds(now)),
            |before| before.last_transition_time.clone(),
        );
    Condition {
        type_: condition.to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.to_string(),
        message: cut(wanted.message),
        observed_generation: Some(generation),
        last_transition_time: since,
    }
}

/// As times are written, so that what is stored equals what was meant.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn cut(mut message: String) -> String {
    let end = (0..=MAX_MESSAGE.min(message.len()))
        .rev()
        .find(|end| message.is_char_boundary(*end));
    message.truncate(end.unwrap_or(0));
    message
}

/// The condition of this type, if it is there.
#[must_use]
pub fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    let name: &str = condition.into();
    conditions.iter().find(|c| c.type_ == name)
}

/// Whether the condition is there and True.
#[must_use]
pub fn is_true(conditions: &[Condition], condition: ConditionType) -> bool {
    find(conditions, condition).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strum::IntoEnumIterator;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: ConditionStatus, message: &str) -> Vec<Wanted> {
        vec![Wanted::new(
            ConditionType::Ready,
            status,
            Reason::Ready,
            message,
        )]
    }

    #[test]
    fn the_time_moves_only_when_the_status_flips() {
        let first = merge(&[], ready(ConditionStatus::True, "a"), 1, at(10));
        let same = merge(&first, ready(ConditionStatus::True, "b"), 2, at(20));
        let flipped = merge(&same, ready(ConditionStatus::False, "b"), 2, at(30));
        let times: Vec<_> = [&first, &same, &flipped]
            .map(|c| c[0].last_transition_time.0)
            .to_vec();
        assert_eq!(times, [at(10), at(10), at(30)]);
        assert_eq!(
            (same[0].message.as_str(), same[0].observed_generation),
            ("b", Some(2))
        );
    }

    #[test]
    fn what_is_no_longer_wanted_goes() {
        let working = merge(
            &[],
            Overall::Working.conditions(Reason::Building, "step 2"),
            1,
            at(1),
        );
        assert!(is_true(&working, ConditionType::Reconciling));
        let current = merge(
            &working,
            Overall::Current.conditions(Reason::Idle, ""),
            1,
            at(2),
        );
        assert_eq!(current.len(), 1);
        assert_eq!(find(&current, ConditionType::Reconciling), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let conditions = merge(
            &[],
            ready(ConditionStatus::True, &"ä".repeat(MAX_MESSAGE)),
            1,
            at(1),
        );
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE);
        let conditions = merge(
            &[],
            ready(ConditionStatus::True, &"€".repeat(MAX_MESSAGE)),
            1,
            at(1),
        );
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE - MAX_MESSAGE % 3);
    }

    #[test]
    fn the_overall_word_means_the_same_to_kstatus() {
        for (overall, expected) in [
            (Overall::Working, "InProgress"),
            (Overall::Retrying, "InProgress"),
            (Overall::Current, "Current"),
            (Overall::Stalled, "Failed"),
        ] {
            let conditions = merge(&[], overall.conditions(Reason::Starting, "x"), 1, at(1));
            assert_eq!(kstatus(&conditions), expected, "{overall:?}");
        }
    }

    /// As `kubectl wait` and delivery tools compute it, for an observed generation that is current.
    fn kstatus(conditions: &[Condition]) -> &'static str {
        let first = conditions
            .iter()
            .find(|c| c.status == "True" && (c.type_ == "Reconciling" || c.type_ == "Stalled"));
        match first.map(|c| c.type_.as_str()) {
            Some("Reconciling") => "InProgress",
            Some(_) => "Failed",
            None if is_true(conditions, ConditionType::Ready) => "Current",
            None => "InProgress",
        }
    }

    #[test]
    fn reasons_are_words_of_the_api() {
        for reason in Reason::iter() {
            let word: &'static str = reason.into();
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.bytes().all(|b| b.is_ascii_alphanumeric()), "{word}");
            assert_eq!(word.parse(), Ok(reason));
        }
    }

    prop_compose! {
        fn wanted()(
            condition in prop::sample::select(ConditionType::iter().collect::<Vec<_>>()),
            status in prop::sample::select(vec![ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown]),
            reason in prop::sample::select(Reason::iter().collect::<Vec<_>>()),
            message in ".{0,8}",
        ) -> Wanted {
            Wanted { condition, status, reason, message }
        }
    }

    proptest! {
        #[test]
        fn any_turns_keep_the_rules(turns in prop::collection::vec(prop::collection::vec(wanted(), 0..10), 1..6)) {
            let mut stored = Vec::new();
            for (turn, wanted) in (1..).zip(turns) {
                let next = merge(&stored, wanted.clone(), turn, at(turn));
                let both = is_true(&next, ConditionType::Reconciling) && is_true(&next, ConditionType::Stalled);
                prop_assert!(!both);
                let types: Vec<ConditionType> = next.iter().map(|c| c.type_.parse().unwrap()).collect();
                prop_assert!(types.is_sorted_by(|a, b| a < b), "one of each, in order");
                for condition in &next {
                    prop_assert_eq!(condition.observed_generation, Some(turn));
                    let before = stored.iter().find(|c: &&Condition| c.type_ == condition.type_ && c.status == condition.status);
                    let since = before.map_or(at(turn), |c| c.last_transition_time.0);
                    prop_assert_eq!(condition.last_transition_time.0, since);
                }
                prop_assert_eq!(merge(&next, wanted, turn, at(turn + 1)), next.clone(), "the same view changes nothing");
                stored = next;
            }
        }
    }
}
