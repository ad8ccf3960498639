//! Rules that keep one bridge from this host's addresses, from those that it listens on with others (broadcast and
//! multicast), and from link-local ones.
//!
//! They are in a chain of our own in the table `raw`, which packets meet before any address is translated: so a published
//! port is no way around them, and the engine, which owns the rules of the other tables, does not reorder them. Resolvers
//! of this host stay in reach on port 53, for the engine's DNS asks them from inside the container's network.

use std::{net::IpAddr, path::Path, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

/// Where hosts list their resolvers; the second one where the first only names a local stub.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The rules of one bridge.
pub(super) struct Firewall<'a> {
    pub(super) bridge: &'a str,
}

/// Why a rule could not be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FirewallError {
    #[error("{program} cannot be run: {error}")]
    Missing {
        program: &'static str,
        error: std::io::Error,
    },
    #[error("{program} failed: {message}")]
    Failed {
        program: &'static str,
        message: String,
    },
}

impl Firewall<'_> {
    /// Sets the rules, or sets them right, and says whether they had to be: the program that lists them writes them in its own
    /// words, so what it lists before is compared with what it lists after.
    pub(super) async fn restore(&self) -> Result<bool, FirewallError> {
        let before = self.listed().await;
        self.install().await?;
        Ok(before != self.listed().await)
    }

    /// Sets the rules, or sets them right. The chain is replaced in one step.
    pub(super) async fn install(&self) -> Result<(), FirewallError> {
        let rules = rules(self.bridge, &resolvers());
        run("iptables-restore", &["--wait", "--noflush"], &rules).await?;
        self.hook("iptables").await?;
        if has_ipv6() {
            run(
                "ip6tables-restore",
                &["--wait", "--noflush"],
                &rules6(self.bridge),
            )
            .await?;
            self.hook("ip6tables").await?;
        }
        Ok(())
    }

    /// Removes the rules, or what there is of them; none there is no error.
    pub(super) async fn remove(&self) -> Result<(), FirewallError> {
        self.take_out("iptables").await?;
        if has_ipv6() {
            self.take_out("ip6tables").await?;
        }
        Ok(())
    }

    fn jump<'a>(&'a self, action: &'a str) -> [&'a str; 9] {
        let chain = self.bridge;
        [
            "--wait",
            "-t",
            "raw",
            action,
            "PREROUTING",
            "-i",
            chain,
            "-j",
            chain,
        ]
    }

    async fn hook(&self, program: &'static str) -> Result<(), FirewallError> {
        if run(program, &self.jump("-C"), "").await.is_ok() {
            return Ok(());
        }
        run(program, &self.jump("-I"), "").await.map(drop)
    }

    /// The hook may be there more than once, and the chain without a hook.
    async fn take_out(&self, program: &'static str) -> Result<(), FirewallError> {
        while run(program, &self.jump("-C"), "").await.is_ok() {
            run(program, &self.jump("-D"), "").await?;
        }
        let chain = |action| ["--wait", "-t", "raw", action, self.bridge];
        if run(program, &chain("-S"), "").await.is_err() {
            return Ok(());
        }
        for action in ["-F", "-X"] {
            run(program, &chain(action), "").await?;
        }
        Ok(())
    }

    /// The rules that there are, of both protocols; none where they cannot be listed.
    async fn listed(&self) -> Vec<String> {
        let mut rules = Vec::new();
        for program in ["iptables", "ip6tables"] {
            let table = run(program, &["--wait", "-t", "raw", "-S"], "").await;
            let table = table.unwrap_or_default();
            let ours = table.lines().filter(|rule| rule.contains(self.bridge));
            rules.extend(ours.map(|rule| format!("{program} {rule}")));
        }
        rules
    }
}

/// The chain, as iptables-restore reads it.
fn rules(chain: &str, resolvers: &[IpAddr]) -> String {
    let mut text = format!("*raw\n:{chain} - [0:0]\n");
    for resolver in resolvers.iter().filter(|address| address.is_ipv4()) {
        for protocol in ["udp", "tcp"] {
            text += &format!("-A {chain} -d {resolver} -p {protocol} --dport 53 -j RETURN\n");
        }
    }
    for kind in ["LOCAL", "BROADCAST", "MULTICAST"] {
        text += &format!("-A {chain} -m addrtype --dst-type {kind} -j DROP\n");
    }
    text += &format!("-A {chain} -d 169.254.0.0/16 -j DROP\nCOMMIT\n");
    text
}

/// The network has no IPv6, so nothing of it may pass.
fn rules6(chain: &str) -> String {
    format!("*raw\n:{chain} - [0:0]\n-A {chain} -j DROP\nCOMMIT\n")
}

fn resolvers() -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    RESOLVERS
        .iter()
        .flat_map(|path| nameservers(&read(path)))
        .collect()
}

/// The nameservers of a resolv.conf. Those on the loopback are asked by the engine itself.
fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback())
        .collect()
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// What a program says.
async fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, FirewallError> {
    let missing = |error| FirewallError::Missing { program, error };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing says why by its status.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(FirewallError::Failed { program, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_and_local_stubs_are_not() {
        let text = "# x\nsearch a.b\nnameserver 10.0.0.1\nnameserver\t127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1\n";
        assert_eq!(nameservers(text), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn dns_passes_before_the_host_is_closed() {
        let text = rules(
            "faas-x",
            &[
                "169.254.169.254".parse().unwrap(),
                "fd00::1".parse().unwrap(),
            ],
        );
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "*raw",
                ":faas-x - [0:0]",
                "-A faas-x -d 169.254.169.254 -p udp --dport 53 -j RETURN",
                "-A faas-x -d 169.254.169.254 -p tcp --dport 53 -j RETURN",
                "-A faas-x -m addrtype --dst-type LOCAL -j DROP",
                "-A faas-x -m addrtype --dst-type BROADCAST -j DROP",
                "-A faas-x -m addrtype --dst-type MULTICAST -j DROP",
                "-A faas-x -d 169.254.0.0/16 -j DROP",
                "COMMIT",
            ]
        );
    }
}
