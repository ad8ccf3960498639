//! What facts about a machine mean for functions (pure).

use std::collections::BTreeMap;

/// Oldest API of an engine that we speak: Docker 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, though not as well as it could.
    Warn,
    /// Functions cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub level: Level,
    name: &'static str,
    /// What was found and, unless that is good, what to do.
    text: String,
}

impl Check {
    /// A check and its outcome.
    pub fn new(level: Level, name: &'static str, text: impl Into<String>) -> Self {
        Self {
            level,
            name,
            text: text.into(),
        }
    }

    /// The check in a line.
    pub fn line(&self) -> String {
        // `strum` writes words without looking at widths.
        format!(
            "{:<6}{:<14}{}\n",
            self.level.to_string(),
            self.name,
            self.text.replace('\n', "\n                    ")
        )
    }
}

/// What an engine's facts mean.
pub fn engine(facts: &BTreeMap<String, String>) -> Vec<Check> {
    let fact = |name: &str| facts.get(name).map_or("unknown", String::as_str);
    vec![
        version(fact("engine")),
        builder(fact("builder")),
        limits(fact("cgroup"), fact("rootless") == "yes"),
        seccomp(fact("seccomp") == "yes"),
        users(fact("rootless") == "yes", fact("userns") == "yes"),
        live_restore(fact("live-restore") == "yes"),
        neighbours(fact("icc")),
    ]
}

fn version(engine: &str) -> Check {
    let api = engine.rsplit("API ").next().and_then(|api| {
        let (major, minor) = api.trim().split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    match api {
        Some(api) if api >= OLDEST_API => Check::new(Level::Ok, "engine", engine),
        _ => Check::new(
            Level::Fail,
            "engine",
            format!("{engine}: install Docker 20.10 (API 1.41) or newer"),
        ),
    }
}

fn builder(builder: &str) -> Check {
    match builder {
        "unknown" => Check::new(
            Level::Warn,
            "builder",
            "unknown: the engine did not say; the classic builder is used",
        ),
        known => Check::new(Level::Ok, "builder", known),
    }
}

fn limits(cgroup: &str, rootless: bool) -> Check {
    match (cgroup, rootless) {
        ("1", true) => Check::new(
            Level::Warn,
            "limits",
            "cgroup version 1 without root enforces no limits of memory, cpu and pids: boot with \
             systemd.unified_cgroup_hierarchy=1",
        ),
        (version, _) => Check::new(
            Level::Ok,
            "limits",
            format!("enforced by cgroup version {version}"),
        ),
    }
}

fn seccomp(on: bool) -> Check {
    if on {
        return Check::new(Level::Ok, "seccomp", "system calls are filtered");
    }
    Check::new(
        Level::Warn,
        "seccomp",
        "system calls are NOT filtered: use a kernel and an engine with seccomp",
    )
}

fn users(rootless: bool, userns: bool) -> Check {
    let text = match (rootless, userns) {
        (true, _) => "the engine runs without root",
        (false, true) => "users of containers are mapped to others of this host",
        (false, false) => "functions run as uid 65532 of this host, without capabilities",
    };
    Check::new(Level::Ok, "users", text)
}

fn live_restore(on: bool) -> Check {
    if on {
        return Check::new(
            Level::Ok,
            "live-restore",
            "functions go on while the engine restarts",
        );
    }
    let text = "off: a restart of the engine ends all instances; set \"live-restore\": true in /etc/docker/daemon.json";
    Check::new(Level::Warn, "live-restore", text)
}

/// Functions never join the default bridge: theirs has no traffic between containers.
fn neighbours(icc: &str) -> Check {
    let bridge = match icc {
        "yes" => "containers on the default bridge reach each other",
        "no" => "containers on the default bridge do not reach each other either",
        _ => "the default bridge did not tell its setting",
    };
    Check::new(
        Level::Ok,
        "icc",
        format!("functions never reach each other ({bridge})"),
    )
}

/// Who may have `network: internet`.
pub fn internet(root: bool) -> Check {
    if root {
        return Check::new(
            Level::Ok,
            "internet",
            "`network: internet` is offered, with this host shielded",
        );
    }
    let text = "`network: internet` is refused: only root can shield this host; run faas as root, or accept the risk with \
                --allow-host-reach";
    Check::new(Level::Warn, "internet", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(changed: &[(&str, &str)]) -> BTreeMap<String, String> {
        let usual = [
            ("engine", "Docker 24.0.1, API 1.43"),
            ("builder", "BuildKit"),
            ("cgroup", "2"),
            ("rootless", "no"),
            ("userns", "no"),
            ("seccomp", "yes"),
            ("live-restore", "yes"),
            ("icc", "no"),
        ];
        let all = usual.iter().chain(changed);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_good_engine_passes_every_check() {
        let checks = engine(&facts(&[]));
        assert_eq!(checks.len(), 7);
        assert!(
            checks.iter().all(|check| check.level == Level::Ok),
            "{checks:?}"
        );
    }

    #[test]
    fn what_is_not_good_is_named() {
        for (changed, name, level) in [
            (
                &[("engine", "Docker 19.03, API 1.40")][..],
                "engine",
                Level::Fail,
            ),
            (
                &[("engine", "Docker of unknown version")],
                "engine",
                Level::Fail,
            ),
            (&[("engine", "Docker 29, API 1.52")], "engine", Level::Ok),
            (&[("builder", "unknown")], "builder", Level::Warn),
            (
                &[("cgroup", "1"), ("rootless", "yes")],
                "limits",
                Level::Warn,
            ),
            (&[("cgroup", "1")], "limits", Level::Ok),
            (&[("seccomp", "no")], "seccomp", Level::Warn),
            (&[("live-restore", "no")], "live-restore", Level::Warn),
        ] {
            let checks = engine(&facts(changed));
            let check = checks.iter().find(|check| check.name == name).unwrap();
            assert_eq!(check.level, level, "{changed:?}");
        }
    }

    #[test]
    fn lines_are_columns() {
        assert_eq!(
            Check::new(Level::Ok, "node", "v22").line(),
            "ok    node          v22\n"
        );
    }
}
