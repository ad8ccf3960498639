//! Commands with a real server, on the process runtime.

use serde_json::Value;

use crate::harness::{Running, Server, run};

/// The README's example, with the sum begun at 0.
const SUM: &str = "
module.exports = (context, cb) => {
  let sum = 0
  for (let num of context.numbers) {
    sum += num
  }
  return cb({sum: sum})
}
";

const GREETER: &str = "
apiVersion: faas.dev/v1alpha1
kind: Function
metadata: {name: greeter}
spec:
  language: node
  source:
    inline:
      index.js: |
        console.log('greeter is here')
        module.exports = async (input) => 'hello ' + input.name
  scale: {min: 1}
";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_first_users_dialogue_holds_to_the_letter() {
    let server = Server::start();
    server.faas("examplefn", &["init"]).good();
    let built = server.faas("examplefn", &["build"]);
    assert!(
        built.stderr.starts_with("Building examplefn ...") && built.stderr.contains("ready in "),
        "{built:#?}"
    );
    assert_eq!(
        built.good(),
        format!("{}/functions/examplefn\n", server.url)
    );
    assert_eq!(
        server.faas(".", &["invoke", "examplefn"]).good(),
        "Response: {\"hello\":\"world\"}\n"
    );
}

#[test]
fn a_function_gets_its_input_and_rolls_over() {
    let server = Server::start();
    server.write("fn/fn.yaml", "language: node\n");
    server.write("fn/index.js", SUM);
    server.write("fn/input.json", "{\n  \"numbers\": [6,4,13]\n}\n");
    server.faas("fn", &["build"]).good();
    let sum = "Response: {\"sum\":23}\n";
    assert_eq!(
        server
            .faas("fn", &["invoke", "fn", "-d", "input.json"])
            .good(),
        sum
    );
    assert_eq!(
        server
            .faas("fn", &["invoke", "fn", "--data", "{\"numbers\":[20,3]}"])
            .good(),
        sum
    );
    assert_eq!(
        run(
            server.command("fn", &["invoke", "fn", "-d", "-"]),
            "{\"numbers\":[23]}"
        )
        .good(),
        sum
    );
    let raw = server
        .faas(
            "fn",
            &["invoke", "fn", "--data", "{\"numbers\":[]}", "-o", "raw"],
        )
        .good();
    assert_eq!(raw, "{\"sum\":0}\n");

    server.write("fn/index.js", "module.exports = async () => 'new'");
    let built = server.faas("fn", &["build", "--verbose"]);
    assert!(built.stderr.contains("fn ready in "), "{built:#?}");
    built.good();
    assert_eq!(
        server.faas("fn", &["invoke", "fn"]).good(),
        "Response: \"new\"\n"
    );
}

#[test]
fn failures_are_told_and_exit_with_1() {
    let server = Server::start();
    server.write("fn/fn.yaml", "language: node\n");
    server.write(
        "fn/index.js",
        "module.exports = (x, cb) => { throw new Error('boom') }",
    );
    server.faas("fn", &["build"]).good();
    for (words, told) in [
        (&["invoke", "fn"][..], "boom"),
        (&["invoke", "fn", "--data", "{"], "not JSON"),
        (
            &["invoke", "fn", "-d", "missing.json"],
            "cannot read missing.json",
        ),
        (&["invoke", "missing"], "no function \"missing\""),
        (&["describe", "missing"], "no function \"missing\""),
        (&["logs", "missing"], "no function \"missing\""),
        (&["delete", "missing"], "missing"),
    ] {
        let outcome = server.faas("fn", words);
        assert_eq!(outcome.stdout, "", "{words:?}");
        let said = outcome.bad();
        assert!(said.contains(told), "{words:?}: {said}");
    }
    server.write("fn/fn.yaml", "language: cobol\n");
    let failed = server.faas("fn", &["build"]);
    assert!(
        failed.stderr.contains("failed after") && failed.stderr.contains("cobol"),
        "{failed:#?}"
    );
    failed.bad();
    server.write("fn/fn.yaml", "language: node\n");
    server.write("fn/index.js", "module.exports = (");
    let said = server.faas("fn", &["build"]).bad();
    assert!(
        said.contains("StartFailed") && said.contains("SyntaxError"),
        "{said}"
    );
}

#[test]
fn manifests_are_applied_shown_and_deleted() {
    let server = Server::start();
    assert!(
        server
            .faas(".", &["list"])
            .good()
            .contains("no functions in namespace default")
    );
    let watching = Running::new(server.command(".", &["list", "--watch"]));
    server.write("manifests/greeter.yaml", GREETER);
    assert_eq!(
        server.faas(".", &["apply", "-f", "manifests"]).good(),
        "greeter created\n"
    );
    watching.line(|line| line.starts_with("greeter   True").then_some(()));
    assert_eq!(
        server
            .faas(".", &["apply", "-f", "manifests/greeter.yaml"])
            .good(),
        "greeter unchanged\n"
    );

    let yaml = server
        .faas(".", &["describe", "greeter", "-o", "yaml"])
        .good();
    assert_eq!(
        run(server.command(".", &["apply", "-f", "-"]), &yaml).good(),
        "greeter unchanged\n"
    );

    let outcome = server.faas(".", &["delete", "missing", "greeter"]);
    assert_eq!(outcome.stdout, "greeter deleted\n");
    assert!(outcome.bad().contains("\"missing\""));
    assert!(server.faas(".", &["list"]).good().contains("no functions"));
}

#[test]
fn a_function_is_shown_in_every_way() {
    let server = Server::start();
    let watching = Running::new(server.command(".", &["status", "--watch"]));
    run(server.command(".", &["apply", "-f", "-"]), GREETER).good();
    watching.line(|line| line.starts_with("greeter   True").then_some(()));
    let list = json(&server.faas(".", &["list", "-o", "json"]).good());
    assert_eq!(list["items"][0]["metadata"]["name"], "greeter");
    let table = server.faas(".", &["list", "-A", "-o", "wide"]).good();
    let words: Vec<_> = table.split_whitespace().collect();
    assert_eq!(words[..3], ["NAMESPACE", "NAME", "READY"]);
    assert!(
        table.contains("default     greeter   True    Ready"),
        "{table}"
    );
    let status = json(&server.faas(".", &["status", "-o", "json"]).good());
    assert_eq!(status["functions"][0]["name"], "greeter");
    assert!(
        server
            .faas(".", &["status"])
            .good()
            .contains("greeter   True")
    );

    let described = server.faas(".", &["describe", "greeter"]).good();
    for part in [
        "Name:         greeter",
        "Conditions:\n",
        "Instances:\n",
        "Events:\n",
        "Last build:\n",
    ] {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
    assert!(
        server
            .faas(".", &["logs", "greeter"])
            .good()
            .contains("greeter is here")
    );
    let called = server
        .faas(".", &["invoke", "greeter", "--data", "{\"name\":\"you\"}"])
        .good();
    assert_eq!(called, "Response: \"hello you\"\n");
}

#[test]
fn one_wrong_manifest_keeps_all_from_being_applied() {
    let server = Server::start();
    server.write("m/a.yaml", GREETER);
    server.write("m/b.yaml", "kind: Function\n");
    let said = server.faas(".", &["apply", "-f", "m"]).bad();
    assert!(
        said.contains("nothing was applied") && said.contains("m/b.yaml:1: "),
        "{said}"
    );
    assert_eq!(
        json(&server.faas(".", &["list", "-o", "json"]).good())["items"],
        Value::Array(Vec::new())
    );
}

#[test]
fn problems_of_a_watched_directory_are_shown_below_the_table() {
    let server = Server::start();
    let watching = Running::new(server.command(".", &["status", "--watch"]));
    server.write("functions/broken.yaml", "kind: [\n");
    watching.line(|line| line.contains("broken.yaml:").then_some(()));
    let table = server.faas(".", &["list"]).good();
    assert!(
        table.contains("\nProblems in the watched directories:\n"),
        "{table}"
    );
}

#[test]
fn what_a_directory_manages_is_not_for_the_command_line() {
    let server = Server::start();
    let watching = Running::new(server.command(".", &["list", "--watch"]));
    server.write("functions/greeter.yaml", GREETER);
    watching.line(|line| line.starts_with("greeter   True").then_some(()));
    let said = server.faas(".", &["delete", "greeter"]).bad();
    assert!(said.contains("functions/greeter.yaml"), "{said}");
    let broken = Running::new(server.command(".", &["status", "--watch"]));
    server.write("functions/greeter.yaml", "kind: [\n");
    broken.line(|line| line.contains("greeter.yaml:").then_some(()));
    let description = server.faas(".", &["describe", "greeter"]).good();
    let told = description.contains("Problems in its file, which keep what it said before:\n  ");
    assert!(
        told && description.contains("greeter.yaml:"),
        "{description}"
    );

    // The directory's disk seems not to be mounted: nothing goes by itself, but it may be deleted.
    let functions = server.dir.path().join("functions");
    std::fs::rename(&functions, server.dir.path().join("away")).unwrap();
    std::fs::create_dir(&functions).unwrap();
    let problems = Running::new(server.command(".", &["status", "--watch"]));
    problems.line(|line| line.contains("no manifest in it").then_some(()));
    server.faas(".", &["delete", "greeter"]).good();
}
