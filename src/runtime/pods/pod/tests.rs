//! What the server gets to see, and what is read from what it tells.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use k8s_openapi::api::core::v1::Pod;

use super::{
    super::{
        seen::{observed, sees_its_calls},
        status::{Ended, State, is_lost, state},
    },
    *,
};
use crate::{
    function::Revision,
    runtime::{Address, End, Limits, SecretFile},
};

fn spec() -> InstanceSpec {
    InstanceSpec {
        id: "faas-sum-0123456789ab".to_owned(),
        function: "sum.maths".parse().unwrap(),
        uid: "b7a6".to_owned(),
        revision: Revision::of([b"one".as_slice()]),
        image: "registry/sum@sha256:1".to_owned(),
        ready_made: false,
        env: vec![("PRICE".to_owned(), "$(PORT) $5".to_owned())],
        secrets: vec![SecretFile {
            path: "login/password".to_owned(),
            bytes: Bytes::from_static(b"secret"),
        }],
        limits: Limits {
            nano_cpus: 500_000_000,
            memory: 128 << 20,
            pids: 64,
            tmp: 64 << 20,
        },
        cpu_shares: 1024,
        network: Network::None,
        startup_timeout: Duration::from_secs(20),
        timeout: Duration::from_secs(30),
        declared: None,
    }
}

/// The pod with this status, as the server would tell it.
fn with(status: Value) -> Pod {
    let mut pod = pod(&spec(), 12345, Some("copy"));
    pod.metadata.uid = Some("c0ffee".to_owned());
    pod.status = serde_json::from_value(status).unwrap();
    pod
}

fn container(state: &Value) -> Pod {
    with(json!({
        "phase": "Pending",
        "podIP": "10.0.0.7",
        "containerStatuses": [{
            "name": "function", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }],
    }))
}

#[test]
fn a_pod_is_restricted_and_tells_nothing() {
    let text = serde_json::to_string(&with(json!({}))).unwrap();
    assert!(
        !text.contains("\"secret\":\"") && !text.contains("c2VjcmV0"),
        "{text}"
    );
    let pod = serde_json::to_value(with(json!({}))).unwrap();
    let container = &pod["spec"]["containers"][0];
    for (value, expected) in [
        (&pod["spec"]["automountServiceAccountToken"], json!(false)),
        (&pod["spec"]["enableServiceLinks"], json!(false)),
        (&pod["spec"]["restartPolicy"], json!("Never")),
        (&pod["spec"]["terminationGracePeriodSeconds"], json!(35)),
        (&pod["spec"]["securityContext"]["runAsNonRoot"], json!(true)),
        (&pod["spec"]["securityContext"]["runAsUser"], json!(65532)),
        (
            &pod["spec"]["securityContext"]["seccompProfile"],
            json!({"type": "RuntimeDefault"}),
        ),
        (
            &container["securityContext"]["allowPrivilegeEscalation"],
            json!(false),
        ),
        (
            &container["securityContext"]["readOnlyRootFilesystem"],
            json!(true),
        ),
        (
            &container["securityContext"]["capabilities"],
            json!({"drop": ["ALL"]}),
        ),
        (
            &container["lifecycle"]["preStop"]["exec"]["command"],
            json!(["/.faas/init", "--until-idle", "12345", "30"]),
        ),
        (
            &container["resources"]["limits"],
            json!({"cpu": "500m", "memory": "134217728"}),
        ),
        (
            &container["resources"]["requests"],
            json!({"cpu": "50m", "memory": "134217728"}),
        ),
        (
            &container["env"][0],
            json!({"name": "PRICE", "value": "$$(PORT) $$5"}),
        ),
        (
            &container["env"][1],
            json!({"name": "PORT", "value": "12345"}),
        ),
        (
            &pod["spec"]["volumes"][1]["secret"]["items"],
            json!([{"key": "0", "path": "login/password"}]),
        ),
    ] {
        assert_eq!(*value, expected);
    }
}

#[test]
fn a_pod_of_an_image_without_our_init_ends_after_the_time_of_a_call() {
    let ready_made = InstanceSpec {
        ready_made: true,
        ..spec()
    };
    let made = pod(&ready_made, 12345, None);
    assert!(!sees_its_calls(&made) && sees_its_calls(&pod(&spec(), 12345, None)));
    let pod = serde_json::to_value(made).unwrap();
    let hook = &pod["spec"]["containers"][0]["lifecycle"]["preStop"];
    assert_eq!(*hook, json!({"sleep": {"seconds": 30}}));
}

#[test]
fn a_pod_is_the_instance_that_it_was_made_from() {
    let running = container(&json!({"running": {}}));
    let seen = observed(&running).unwrap();
    let at = ([10, 0, 0, 7], 12345).into();
    let uid = "c0ffee".to_owned();
    assert_eq!(seen, spec().running_at(Address::Pod { at, uid }));

    let mut strange = running.clone();
    strange.metadata.owner_references = None;
    assert_eq!(observed(&strange), None);

    // Somebody edited it: it is there all the same, and has to end.
    let mut edited = running;
    edited.metadata.annotations = None;
    let labels = edited.metadata.labels.as_mut().unwrap();
    labels.remove("faas.dev/revision");
    let known = observed(&edited).unwrap();
    assert_eq!(known.id, seen.id);
    assert_ne!(known.revision, seen.revision);
}

/// As a service mesh does it, before ours or behind it.
#[test]
fn what_a_cluster_puts_beside_the_program_is_not_taken_for_it() {
    let beside = json!({"name": "agent", "image": "agent", "ports": [{"containerPort": 15090}]});
    let running = json!({"running": {}});
    let ended = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
    for at in [0, 1] {
        for (state_of_ours, state_beside) in [(&running, &ended), (&ended, &running)] {
            let mut value = serde_json::to_value(container(state_of_ours)).unwrap();
            let mut status = value["status"]["containerStatuses"][0].clone();
            status["name"] = json!("agent");
            status["state"] = state_beside.clone();
            let mut insert = |list: &str, item: Value| {
                let list = value.pointer_mut(list).unwrap().as_array_mut().unwrap();
                list.insert(at, item);
            };
            insert("/spec/containers", beside.clone());
            insert("/status/containerStatuses", status);
            let pod: Pod = serde_json::from_value(value).unwrap();
            assert_eq!(state(&pod), state(&container(state_of_ours)));
            let image = observed(&pod).unwrap().image;
            assert_eq!(image, spec().image);
        }
    }
}

#[test]
fn a_status_tells_how_it_is() {
    let ended = |code, end, words: &str| {
        State::Ended(Ended {
            code,
            end,
            words: words.to_owned(),
        })
    };
    let at = ([10, 0, 0, 7], 12345).into();
    let unscheduled = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"},
    ]});
    let evicted =
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"});
    for (pod, expected) in vec![
        (with(json!({})), State::Waiting(String::new())),
        (
            with(unscheduled),
            State::Waiting("0/1 nodes are available".to_owned()),
        ),
        (
            with(evicted),
            ended(-1, End::Engine, "Evicted: The node was low on memory"),
        ),
        (
            container(&json!({"waiting": {"reason": "ContainerCreating"}})),
            State::Waiting(String::new()),
        ),
        (
            container(&json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}})),
            State::NoImage("ErrImagePull: not found".to_owned()),
        ),
        (
            container(
                &json!({"waiting": {"reason": "CreateContainerError", "message": "no command"}}),
            ),
            State::NotRunnable("CreateContainerError: no command".to_owned()),
        ),
        (container(&json!({"running": {}})), State::Running(at)),
        (
            container(&json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "oh"}})),
            ended(1, End::Itself, "oh"),
        ),
        (
            container(&json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            ended(137, End::OutOfMemory, ""),
        ),
        (
            container(
                &json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "not found"}}),
            ),
            State::NotRunnable("not found".to_owned()),
        ),
    ] {
        assert_eq!(state(&pod), expected);
    }
}

#[test]
fn a_pod_that_others_end_runs_until_it_has() {
    let mut leaving = container(&json!({"running": {}}));
    leaving.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(state(&leaving), State::Leaving);
    let seen = observed(&leaving).unwrap();
    assert!(seen.running && seen.leaving, "it has its calls still");
}

#[test]
fn a_pod_is_lost_when_it_must_leave_its_node_and_the_node_is_missed() {
    let taint = ["True", "DeletionByTaintManager"];
    let drained = ["True", "EvictionByEvictionAPI"];
    for (ready, target, is_deleted, expected) in [
        ("False", taint, true, true),
        // Its node is told to have no pods, and ends it in order.
        ("True", taint, true, false),
        // A node may be missed for a moment.
        ("False", taint, false, false),
        ("False", drained, true, false),
        ("False", ["False", taint[1]], true, false),
    ] {
        let mut pod = container(&json!({"running": {}}));
        let conditions = json!([
            {"type": "Ready", "status": ready},
            {"type": "DisruptionTarget", "status": target[0], "reason": target[1]},
        ]);
        pod.status.as_mut().unwrap().conditions = serde_json::from_value(conditions).unwrap();
        pod.metadata.deletion_timestamp =
            is_deleted.then(|| serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(is_lost(&pod), expected, "{ready} {target:?} {is_deleted}");
        let is_over = matches!(state(&pod), State::Ended(ended) if ended.end == End::Engine);
        assert_eq!(is_over, expected);
    }
}
