//! How often somebody may fail (pure): ten times at once, then once in six seconds. Bounded, whoever tries.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Failures at once.
const BURST: u32 = 10;
/// Time that makes one failure good.
const EACH: Duration = Duration::from_secs(6);
/// Most whose failures are remembered.
const MAX: usize = 4_096;

/// Who failed: an address, and the id of the token that it knows, if it does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    network: IpAddr,
    token: Option<String>,
}

impl Key {
    /// In IPv6 everybody has 2^64 addresses, so their first half counts.
    pub fn new(peer: IpAddr, token: Option<&str>) -> Self {
        let network = match peer.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            ip @ IpAddr::V4(_) => ip,
        };
        Self {
            network,
            token: token.map(str::to_owned),
        }
    }
}

/// When the failures of each will have been made good.
#[derive(Debug, Default)]
pub struct Failures(HashMap<Key, Instant>);

impl Failures {
    /// How long they have to wait before they may try again, if they have.
    pub fn wait(&self, key: &Key, now: Instant) -> Option<Duration> {
        let good = self.0.get(key)?;
        let wait = good.saturating_duration_since(now + EACH * (BURST - 1));
        (!wait.is_zero()).then_some(wait)
    }

    /// They failed. When there is no room, those who failed least make it.
    pub fn note(&mut self, key: Key, now: Instant) {
        if self.0.len() >= MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, good| *good > now);
            let least = self.0.iter().min_by_key(|(_, good)| **good);
            if let Some(key) = least.map(|(key, _)| key.clone())
                && self.0.len() >= MAX
            {
                self.0.remove(&key);
            }
        }
        let good = self.0.entry(key).or_insert(now);
        *good = now.max(*good) + EACH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Key {
        Key::new(address.parse().unwrap(), None)
    }

    #[test]
    fn ten_at_once_then_one_each_six_seconds_and_nobody_elses_count() {
        let (start, mut failures) = (Instant::now(), Failures::default());
        for _ in 0..BURST {
            assert_eq!(failures.wait(&key("192.0.2.1"), start), None);
            failures.note(key("192.0.2.1"), start);
        }
        assert_eq!(failures.wait(&key("192.0.2.1"), start), Some(EACH));
        assert_eq!(failures.wait(&key("192.0.2.2"), start), None);
        let known = Key::new("192.0.2.1".parse().unwrap(), Some("id"));
        assert_eq!(failures.wait(&known, start), None);
        let later = start + EACH;
        assert_eq!(failures.wait(&key("192.0.2.1"), later), None);
        failures.note(key("192.0.2.1"), later);
        assert_eq!(failures.wait(&key("192.0.2.1"), later), Some(EACH));
        assert_eq!(failures.wait(&key("192.0.2.1"), start + EACH * 20), None);
    }

    #[test]
    fn one_network_of_ipv6_is_one_and_a_mapped_address_is_ipv4() {
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }

    #[test]
    fn whoever_tries_the_worst_are_remembered_in_bounded_memory() {
        let (now, mut failures) = (Instant::now(), Failures::default());
        for _ in 0..BURST {
            failures.note(key("192.0.2.1"), now);
        }
        for ip in 0..u32::try_from(2 * MAX).unwrap() {
            failures.note(Key::new(IpAddr::V4(ip.into()), None), now);
        }
        assert_eq!(failures.0.len(), MAX);
        assert!(failures.wait(&key("192.0.2.1"), now).is_some());
        failures.note(key("192.0.2.3"), now + EACH * 20);
        assert_eq!(failures.0.len(), 1);
    }
}
