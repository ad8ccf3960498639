//! What a container is made with.

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::runtime::{Limits, Network, SecretFile};

fn spec() -> InstanceSpec {
    InstanceSpec {
        id: "faas-sum-0123456789ab".to_owned(),
        function: FunctionKey::new("default", "sum").unwrap(),
        uid: "5b1e".to_owned(),
        revision: "00112233445566ff".parse().unwrap(),
        image: "faas.local/owner:abc".to_owned(),
        ready_made: false,
        env: vec![("A".to_owned(), "1".to_owned())],
        secrets: vec![SecretFile {
            path: "db/password".to_owned(),
            bytes: "hush".into(),
        }],
        limits: Limits {
            nano_cpus: 500_000_000,
            memory: 128 << 20,
            pids: 128,
            tmp: 64 << 20,
        },
        cpu_shares: 1024,
        network: Network::None,
        startup_timeout: Duration::from_secs(20),
        timeout: Duration::from_secs(30),
        declared: Some("{}".to_owned()),
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: Some(vec!["node".to_owned()]),
        cmd: Some(vec!["shim.js".to_owned()]),
        ..ImageConfig::default()
    }
}

fn dirs() -> InstanceDirs {
    InstanceDirs {
        sockets: PathBuf::from("/run/faas/i"),
        secrets: Some(PathBuf::from("/run/faas/i.secrets")),
    }
}

fn made(spec: &InstanceSpec, image: &ImageConfig) -> ContainerCreateBody {
    let at = Placement {
        owner: "me",
        init: Path::new("/state/init"),
        dirs: &dirs(),
        network: "none",
        cores: 4,
    };
    body(spec, image, at).unwrap()
}

#[test]
fn cores_are_asked_for_as_the_engine_has_them() {
    for (asked, told) in [
        (0, CORE / 100),
        (1, CORE / 100),
        (3 * CORE + 1, 3 * CORE + 1),
        (4 * CORE, 4 * CORE),
        (4 * CORE + 1, 4 * CORE),
        (i64::MAX, 4 * CORE),
    ] {
        let mut spec = spec();
        spec.limits.nano_cpus = asked;
        let host = made(&spec, &image()).host_config.unwrap();
        assert_eq!(host.nano_cpus, Some(told), "{asked}");
    }
}

#[test]
fn a_container_is_hardened_whatever_the_image_says() {
    let image = ImageConfig {
        user: Some("root".to_owned()),
        stop_signal: Some("SIGCONT".to_owned()),
        ..image()
    };
    let body = made(&spec(), &image);
    assert_eq!(body.user.as_deref(), Some("65532:65532"));
    assert_eq!(body.stop_signal.as_deref(), Some("SIGTERM"));
    assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
    let host = body.host_config.unwrap();
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(host.cap_add, None);
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(host.memory, host.memory_swap);
    assert_eq!((host.memory, host.pids_limit), (Some(128 << 20), Some(128)));
    assert_eq!(
        (host.nano_cpus, host.oom_score_adj),
        (Some(500_000_000), Some(500))
    );
    let tmp = "rw,noexec,nosuid,nodev,size=67108864,mode=1777";
    assert_eq!(host.tmpfs.unwrap(), strings([("/tmp", tmp)]));
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("local"));
}

#[test]
fn only_the_socket_directory_is_mounted_writable() {
    let mounts = made(&spec(), &image()).host_config.unwrap().mounts.unwrap();
    let shown: Vec<_> = mounts
        .iter()
        .map(|m| (m.target.as_deref().unwrap(), m.read_only.unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ("/.faas/init", true),
            ("/run/faas", false),
            ("/run/secrets", true)
        ]
    );
}

#[test]
fn the_init_runs_what_the_image_would() {
    for (entrypoint, cmd, expected) in [
        (Some("node"), Some("shim.js"), &["node", "shim.js"][..]),
        (None, Some("shim.js"), &["shim.js"]),
        (Some("node"), None, &["node"]),
    ] {
        let list = |word: Option<&str>| word.map(|word| vec![word.to_owned()]);
        let image = ImageConfig {
            entrypoint: list(entrypoint),
            cmd: list(cmd),
            ..ImageConfig::default()
        };
        let body = made(&spec(), &image);
        assert_eq!(body.entrypoint.unwrap(), ["/.faas/init"]);
        assert_eq!(body.cmd.unwrap(), expected);
    }
    assert!(matches!(
        command(&ImageConfig::default()),
        Err(RuntimeError::NotRunnable(_))
    ));
}

#[test]
fn the_environment_names_nothing_twice_and_the_socket_is_ours() {
    let pairs = [
        ("PORT", "9000"),
        ("FAAS_SOCKET", "/x"),
        ("A", "1"),
        ("A", "2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        environment(&pairs),
        ["PORT=9000", "A=2", "FAAS_SOCKET=/run/faas/fn.sock"]
    );
    assert_eq!(
        environment(&[]),
        ["PORT=8080", "FAAS_SOCKET=/run/faas/fn.sock"]
    );
}

#[test]
fn volumes_of_the_image_become_limited() {
    let image = |path: &str| ImageConfig {
        volumes: Some(vec![path.to_owned()]),
        ..image()
    };
    let ours = [bind(Path::new("/host"), SOCKETS, false)];
    for (volume, place) in [
        ("/data", Some("/data")),
        ("/run", Some("/run")),
        ("/run/faas", None),
        ("/run/secrets", Some("/run/secrets")),
        ("/data/", Some("/data")),
        ("data", Some("/data")),
        ("//run//secrets", Some("/run/secrets")),
        ("/a/./b", Some("/a/b")),
        ("/run/../../b", Some("/b")),
        ("/run/./faas/", None),
        ("/tmp", None),
    ] {
        let tmpfs = writable(&image(volume), 1, &ours);
        let mut paths: Vec<_> = tmpfs.keys().map(String::as_str).collect();
        paths.sort_unstable();
        let expected: Vec<_> = place.into_iter().chain(["/tmp"]).collect();
        assert_eq!(paths, expected, "{volume}");
    }
}

#[test]
fn no_secret_is_in_the_body() {
    let body = serde_json::to_string(&made(&spec(), &image())).unwrap();
    assert!(body.contains("/run/secrets") && !body.contains("hush"));
}

#[test]
fn labels_tell_the_instance_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = RunRoot::open(dir.path(), false).unwrap();
    let spec = spec();
    let labels = labels(&spec, "me");
    let expected = Observed {
        id: spec.id.clone(),
        function: spec.function.clone(),
        uid: spec.uid.clone(),
        revision: spec.revision.clone(),
        image: spec.image.clone(),
        memory: spec.limits.memory,
        running: true,
        leaving: false,
        address: root.socket(&spec.id).into(),
        declared: spec.declared.clone(),
    };
    assert_eq!(observed(&labels, true, &root), Some(expected));
    for missing in [FUNCTION, NAMESPACE, UID, REVISION, INSTANCE, IMAGE, MEMORY] {
        let mut labels = labels.clone();
        labels.remove(missing);
        assert_eq!(observed(&labels, true, &root), None, "{missing}");
    }
}
