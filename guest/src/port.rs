//! Whether a TCP port is listened on, at which address it is reached, and whether somebody speaks with it: read from the
//! kernel's tables, because a connection made to find out would be seen by the program.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const STATE_LISTEN: &str = "0A";
/// A connection that is open, that is about to be, and that the program has closed while the other side has yet to get the
/// end of what it was sent.
const STATES_OF_USE: [&str; 3] = ["01", "03", "04"];
const V6_LOOPBACK: &str = "00000000000000000000000000000001";

/// Where a listener on `port` of this network namespace is reached, if there is one.
pub fn find(port: u16) -> Option<SocketAddr> {
    let address = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening(&fs::read_to_string(table).ok()?, port))?;
    let interfaces = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let v6 = interfaces.lines().any(|line| line.starts_with(V6_LOOPBACK));
    Some(SocketAddr::new(reachable(address, v6), port))
}

/// Whether somebody has a connection to `port` of this network namespace.
pub fn is_in_use(port: u16) -> io::Result<bool> {
    // Without IPv6 there is no table of it.
    let six = fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let four = fs::read_to_string("/proc/net/tcp")?;
    Ok([four, six].iter().any(|table| used(table, port)))
}

/// Whether some socket of this table is a connection to `port`.
fn used(table: &str, port: u16) -> bool {
    sockets(table, port).any(|(_, state)| STATES_OF_USE.contains(&state))
}

/// The address on which some socket of this table listens on `port`.
fn listening(table: &str, port: u16) -> Option<IpAddr> {
    let mut listeners = sockets(table, port).filter(|(_, state)| *state == STATE_LISTEN);
    listeners.find_map(|(address, _)| parse_address(address))
}

/// The sockets of this table whose own port is `port`: their addresses and states.
fn sockets(table: &str, port: u16) -> impl Iterator<Item = (&str, &str)> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, local_port) = fields.next()?.split_once(':')?;
        let wanted = u16::from_str_radix(local_port, 16) == Ok(port);
        wanted.then_some((address, fields.nth(1)?))
    })
}

/// The kernel prints addresses as 32-bit words, each in the order of the machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let words = text
        .as_bytes()
        .chunks(8)
        .map(parse_word)
        .collect::<Option<Vec<_>>>()?;
    let bytes = words.concat();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(v6).to_canonical())
}

fn parse_word(hex: &[u8]) -> Option<[u8; 4]> {
    let word = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
    (hex.len() == 8).then(|| word.to_ne_bytes())
}

/// A wildcard is reached by loopback. One of IPv6 takes IPv4 too, unless its program said otherwise, and is reached by
/// IPv4 where IPv6 has no loopback address.
fn reachable(address: IpAddr, v6_loopback: bool) -> IpAddr {
    match address {
        address if !address.is_unspecified() => address,
        IpAddr::V6(_) if v6_loopback => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 11 1 0 100 0 0 10 0
   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 12 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 65532        0 13 1 0 20 4 30 10 -1
   3: 0200007F:C350 0100007F:1F90 0A";

    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000
   3: 000080FE00000000:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn finds_only_listeners_of_the_port() {
        let cases = [
            (TCP, 8081, Some("127.0.0.1")),
            (TCP, 3000, Some("0.0.0.0")),
            (TCP, 50000, Some("127.0.0.2")),
            (TCP, 8080, None), // a connection, not a listener
            (TCP, 80, None),
            (TCP6, 8080, Some("::")),
            (TCP6, 8081, Some("::1")),
            (TCP6, 8082, Some("127.0.0.1")), // IPv4 in IPv6
            (TCP6, 8083, None),              // half an address
            ("", 8080, None),
            (
                "sl local\n garbage\n 0: nothing 0 0A\n 0: zz:1F90 0 0A",
                8080,
                None,
            ),
        ];
        for (table, port, expected) in cases {
            assert_eq!(listening(table, port), expected.map(ip), "port {port}");
        }
    }

    #[test]
    fn a_port_is_in_use_while_the_other_side_may_still_get_or_send_something() {
        for (state, expected) in [
            ("01", true),  // established
            ("03", true),  // a handshake
            ("04", true),  // closed by the program, and not all has arrived
            ("05", false), // all has arrived
            ("06", false), // over
            ("08", false), // the other side has left
            ("0A", false), // the listener
        ] {
            let line = |own, other| format!("sl\n 0: 0100007F:{own} 0100007F:{other} {state} 0:0");
            assert_eq!(used(&line("1F90", "C350"), 8080), expected, "{state}");
            assert!(!used(&line("C350", "1F90"), 8080), "another's, {state}");
        }
        assert!(!used("sl local\n garbage\n 0: nothing 0 01", 8080));
    }

    #[test]
    fn wildcards_are_reached_by_loopback() {
        let cases = [
            ("0.0.0.0", true, "127.0.0.1"),
            ("::", true, "::1"),
            ("::", false, "127.0.0.1"),
            ("127.0.0.2", true, "127.0.0.2"),
            ("::1", true, "::1"),
        ];
        for (address, v6, expected) in cases {
            assert_eq!(reachable(ip(address), v6), ip(expected), "{address}");
        }
    }

    #[test]
    fn finds_a_real_listener_until_it_is_gone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(find(address.port()), Some(address));
        drop(listener);
        assert_eq!(find(address.port()), None);
    }
}
