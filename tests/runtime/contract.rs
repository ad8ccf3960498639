//! What both runtimes promise.

use std::time::Duration;

use faas::runtime::{End, RuntimeError, SecretFile};
use futures::StreamExt;

use crate::bench::{Bench, invoke, soon, until};

/// Makes a test of each promise for the runtime that `$bench` makes.
macro_rules! promises {
    ($bench:expr; $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(bench) = $bench.await {
                    crate::contract::$name(&bench).await;
                }
            }
        )*
    };
    ($bench:expr) => {
        crate::contract::promises!(
            $bench;
            a_started_instance_answers,
            stopping_leaves_nothing_and_may_be_repeated,
            a_stubborn_program_is_killed_after_its_grace,
            an_exit_is_reported,
            a_program_that_exits_is_told_with_its_last_words,
            a_program_that_never_listens_is_told_with_its_last_words,
            an_image_that_is_not_there_is_told,
            a_symlink_in_place_of_the_socket_is_refused,
            a_caller_who_leaves_leaves_nothing,
            the_same_instance_is_not_started_twice,
            secrets_are_files,
            logs_are_read_and_followed,
            what_is_not_there_has_no_log,
            facts_name_the_engine,
            leaving_takes_the_run_directory_along_once_it_is_empty,
        );
    };
}
pub(crate) use promises;

pub async fn a_started_instance_answers(bench: &Bench) {
    let spec = bench.spec(&[("GREETING", "hello")]);
    let observed = bench.runtime.start(&spec).await.unwrap();
    assert_eq!(observed, spec.running_at(observed.address.clone()));
    assert_eq!(
        bench.runtime.observe().await.unwrap(),
        std::slice::from_ref(&observed)
    );
    let answer = invoke(&observed.address, "process.env.GREETING + 1").await;
    assert_eq!(answer, "hello1");
    bench.stop(&spec).await;
    assert_eq!(bench.runtime.observe().await.unwrap(), []);
}

pub async fn leaving_takes_the_run_directory_along_once_it_is_empty(bench: &Bench) {
    let spec = bench.spec(&[]);
    let address = bench.runtime.start(&spec).await.unwrap().address;
    let socket = address.socket().unwrap();
    let root = socket.ancestors().nth(2).unwrap();
    bench.runtime.leave().await;
    assert!(socket.exists(), "what is in use stays");
    bench.stop(&spec).await;
    bench.runtime.leave().await;
    assert!(!root.exists());
}

pub async fn stopping_leaves_nothing_and_may_be_repeated(bench: &Bench) {
    let spec = bench.spec(&[]);
    bench.runtime.start(&spec).await.unwrap();
    assert_ne!((bench.remains)(&spec.id), [""; 0], "the test can fail");
    let grace = Duration::from_secs(30);
    soon(
        "a polite program ends at TERM",
        bench.runtime.stop(&spec.id, grace),
    )
    .await
    .unwrap();
    bench.assert_gone(&spec.id);
    bench.stop(&spec).await;
}

pub async fn a_stubborn_program_is_killed_after_its_grace(bench: &Bench) {
    let spec = bench.spec(&[("MODE", "stubborn")]);
    let mut exits = bench.runtime.exits().await.unwrap();
    bench.runtime.start(&spec).await.unwrap();
    let grace = Duration::from_secs(1);
    soon("stop", bench.runtime.stop(&spec.id, grace))
        .await
        .unwrap();
    assert_eq!(soon("its exit", exits.next()).await.unwrap().code, 137);
    bench.assert_gone(&spec.id);
}

pub async fn an_exit_is_reported(bench: &Bench) {
    let mut exits = bench.runtime.exits().await.unwrap();
    let spec = bench.spec(&[]);
    assert_eq!(
        bench
            .eval(&spec, "setImmediate(() => process.exit(7)); 'bye'")
            .await,
        "bye"
    );
    let exit = soon("the exit", exits.next()).await.unwrap();
    assert_eq!((&exit.id, &exit.function), (&spec.id, &spec.function));
    assert_eq!((exit.code, exit.end), (7, End::Itself));
    let left = bench.runtime.observe().await.unwrap();
    assert_eq!(
        left.iter().map(|one| one.running).collect::<Vec<_>>(),
        [false]
    );
    bench.stop(&spec).await;
}

pub async fn a_program_that_exits_is_told_with_its_last_words(bench: &Bench) {
    let spec = bench.spec(&[("MODE", "exit")]);
    match soon("the exit", bench.runtime.start(&spec))
        .await
        .unwrap_err()
    {
        RuntimeError::Exited {
            code: 3,
            out_of_memory: false,
            log,
        } => {
            assert!(
                log.contains("out of luck") && log.contains("no such thing"),
                "{log}"
            );
        }
        other => panic!("{other}"),
    }
    bench.assert_gone(&spec.id);
}

pub async fn a_program_that_never_listens_is_told_with_its_last_words(bench: &Bench) {
    let mut spec = bench.spec(&[("MODE", "silent")]);
    spec.startup_timeout = Duration::from_secs(2);
    match soon("the limit", bench.runtime.start(&spec))
        .await
        .unwrap_err()
    {
        RuntimeError::NotListening { limit, log } => {
            assert_eq!(limit, spec.startup_timeout);
            assert!(log.contains("thinking"), "{log}");
        }
        other => panic!("{other}"),
    }
    bench.assert_gone(&spec.id);
}

pub async fn an_image_that_is_not_there_is_told(bench: &Bench) {
    let mut spec = bench.spec(&[]);
    "faas.local/never:made".clone_into(&mut spec.image);
    let error = bench.runtime.start(&spec).await.unwrap_err();
    assert_eq!(error, RuntimeError::ImageMissing(spec.image.clone()));
    bench.assert_gone(&spec.id);
}

pub async fn a_symlink_in_place_of_the_socket_is_refused(bench: &Bench) {
    let spec = bench.spec(&[("MODE", "link")]);
    match soon("the refusal", bench.runtime.start(&spec))
        .await
        .unwrap_err()
    {
        RuntimeError::NotRunnable(why) => assert!(why.contains("symbolic link"), "{why}"),
        other => panic!("{other}"),
    }
    bench.assert_gone(&spec.id);
}

pub async fn a_caller_who_leaves_leaves_nothing(bench: &Bench) {
    // At whatever point: before, while and after the engine makes it.
    for pause in [0, 50, 150, 400, 1000] {
        let spec = bench.spec(&[("MODE", "silent")]);
        let start = bench.runtime.start(&spec);
        assert!(
            tokio::time::timeout(Duration::from_millis(pause), start)
                .await
                .is_err()
        );
        until("nothing stays", || (bench.remains)(&spec.id).is_empty()).await;
    }
}

pub async fn the_same_instance_is_not_started_twice(bench: &Bench) {
    let spec = bench.spec(&[]);
    let first = bench.runtime.start(&spec).await.unwrap();
    bench.runtime.start(&spec).await.unwrap_err();
    assert_eq!(
        invoke(&first.address, "1 + 1").await,
        "2",
        "the first lives on"
    );
    bench.stop(&spec).await;
}

pub async fn secrets_are_files(bench: &Bench) {
    let mut spec = bench.spec(&[]);
    spec.secrets = vec![SecretFile {
        path: "db/password".to_owned(),
        bytes: "hush".into(),
    }];
    let read = "const dir = process.env.FAAS_SECRETS_DIR || '/run/secrets';
        fs.readFileSync(dir + '/db/password') + ' ' + JSON.stringify(process.env).includes('hush')";
    assert_eq!(bench.eval(&spec, read).await, "hush false");
    bench.stop(&spec).await;
}

pub async fn logs_are_read_and_followed(bench: &Bench) {
    let spec = bench.spec(&[]);
    let socket = bench.runtime.start(&spec).await.unwrap().address;
    invoke(
        &socket,
        "for (let n = 0; n < 9; n++) console.log('line ' + n); 0",
    )
    .await;

    let mut seen = String::new();
    let mut pieces = bench.runtime.logs(&spec.id, 100, true).await.unwrap();
    soon("the past", async {
        while !seen.contains("line 8") {
            seen += &String::from_utf8_lossy(&pieces.next().await.unwrap().bytes);
        }
    })
    .await;
    assert!(seen.contains("listening"), "{seen}");
    invoke(&socket, "console.error('late'); 0").await;
    soon("the future", async {
        while !seen.contains("late") {
            seen += &String::from_utf8_lossy(&pieces.next().await.unwrap().bytes);
        }
    })
    .await;

    let tail = bench.runtime.logs(&spec.id, 2, false).await.unwrap();
    let tail: Vec<_> = soon("the tail", tail.collect::<Vec<_>>()).await;
    let bytes: Vec<u8> = tail.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), "line 8\nlate\n");
    let last = bench.runtime.stop(&spec.id, Duration::ZERO).await.unwrap();
    assert!(last.ends_with(b"line 8\nlate\n"), "{last:?}");
    bench.stop(&spec).await;
    soon("a follower's end", async {
        while pieces.next().await.is_some() {}
    })
    .await;
}

pub async fn what_is_not_there_has_no_log(bench: &Bench) {
    let id = bench.spec(&[]).id;
    let pieces = bench.runtime.logs(&id, 10, true).await.unwrap();
    assert_eq!(soon("the end", pieces.count()).await, 0);
}

pub async fn facts_name_the_engine(bench: &Bench) {
    let facts = bench.runtime.facts().await.unwrap();
    assert!(facts.contains_key("engine"), "{facts:?}");
}
