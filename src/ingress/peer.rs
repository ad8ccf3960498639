//! Whether a caller is still there. One that has left and one that only sends no more look the same on the wire; but of
//! callers on this machine its kernel knows whether anybody still holds their end of the connection. Of all others, the end
//! of what they send is taken for leaving, as nginx does: who calls and then shuts half of the connection is rare, and a call
//! whose caller has left must not go on holding an instance.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with,
    },
};
use tokio::net::TcpStream;

/// Length of a question: a netlink header and an `inet_diag_req_v2`.
const QUESTION: usize = 72;
/// `SOCK_DIAG_BY_FAMILY`, in questions and answers.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Where an answer has the inode: behind a netlink header, in an `inet_diag_msg`.
const INODE: usize = 84;

/// Whether the caller has left: its end was reset, or no process holds it any more. Where the kernel does not tell, it is
/// believed to be there. One that is elsewhere has left when it sends no more.
pub fn has_left(stream: &TcpStream) -> bool {
    if !matches!(stream.take_error(), Ok(None)) {
        return true;
    }
    let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else {
        return true;
    };
    if !is_here(there.ip(), here.ip()) {
        return sends_no_more(stream);
    }
    matches!(inode(there, here), Ok(Some(0)))
}

/// Whether the other end is on this machine.
fn is_here(there: IpAddr, here: IpAddr) -> bool {
    there.to_canonical().is_loopback() || there == here
}

/// Whether the end of what it sends has come, read or not.
fn sends_no_more(stream: &TcpStream) -> bool {
    let mut look = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec::default();
    poll(&mut look, Some(&at_once)).is_ok_and(|found| found > 0)
}

/// Inode of the socket at `from` that is connected to `to`, 0 if it is only the kernel's; nothing if there is none.
fn inode(from: SocketAddr, to: SocketAddr) -> io::Result<Option<u32>> {
    let kernel: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&kernel, &question(from, to), SendFlags::empty())?;
    let mut answer = [0; 512];
    // The kernel has answered already.
    let (_, length) = recv(&kernel, &mut answer, RecvFlags::DONTWAIT)?;
    let found = length >= INODE + 4 && answer[4..6] == BY_FAMILY.to_ne_bytes();
    let inode = [INODE, INODE + 1, INODE + 2, INODE + 3].map(|at| answer[at]);
    Ok(found.then(|| u32::from_ne_bytes(inode)))
}

fn question(from: SocketAddr, to: SocketAddr) -> [u8; QUESTION] {
    let mut bytes = [0; QUESTION];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (from, to) = (canonical(from), canonical(to));
    put(0, &72u32.to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    let family = match from.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    put(16, &family.as_raw().to_ne_bytes()[..1]);
    // TCP, in any state.
    put(17, &[6]);
    put(20, &[0xff; 4]);
    put(24, &from.port().to_be_bytes());
    put(26, &to.port().to_be_bytes());
    for (at, address) in [(28, from.ip()), (44, to.ip())] {
        match address {
            IpAddr::V4(address) => put(at, &address.octets()),
            IpAddr::V6(address) => put(at, &address.octets()),
        }
    }
    // Whatever its cookie.
    put(64, &[0xff; 8]);
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await;
        (listener.accept().await.unwrap().0, caller.unwrap())
    }

    #[tokio::test]
    async fn who_sends_no_more_is_there_and_who_has_left_is_not() {
        assert!(is_here([127, 0, 0, 1].into(), [127, 0, 0, 1].into()));
        assert!(!is_here([192, 0, 2, 1].into(), [192, 0, 2, 2].into()));
        let mut addresses = vec!["127.0.0.1:0"];
        if TcpListener::bind("[::1]:0").await.is_ok() {
            addresses.push("[::1]:0");
        }
        for address in addresses {
            let (ours, mut caller) = pair(address).await;
            assert!(!has_left(&ours) && !sends_no_more(&ours), "it is there");
            caller.shutdown().await.unwrap();
            assert!(!has_left(&ours), "it sends no more");
            assert!(sends_no_more(&ours), "which is leaving for others");
            drop(caller);
            assert!(has_left(&ours), "it closed");

            let (ours, caller) = pair(address).await;
            caller.set_zero_linger().unwrap();
            drop(caller);
            assert!(has_left(&ours), "it reset the connection");
        }
    }
}
