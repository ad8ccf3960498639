//! What the program may not do though the engine would let it: open sockets that know nothing of network namespaces, and
//! touch the init.
//!
//! A virtual machine's sockets (`AF_VSOCK`) lead to its host and its host's guests from any container, and the filter of
//! Docker 20.10 allows them. So the kinds of sockets that a program may open are a short list. What would open them past a
//! filter is not offered either: `io_uring`, and the one call for all socket calls that old 32-bit programs use.

use std::io;

use libc::{c_long, sock_filter};

use crate::sys;

/// Sockets of files, of IP, and of the kernel's own tables, which programs ask for their addresses.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Numbers of system calls, in one of the ways to make them.
struct Calls {
    /// Make sockets, of the kind that their first argument says.
    socket: [c_long; 2],
    /// There are none such.
    absent: &'static [c_long],
}

const NATIVE: Calls = Calls {
    socket: [libc::SYS_socket, libc::SYS_socketpair],
    absent: &[libc::SYS_io_uring_setup],
};

/// The way of 32-bit programs, as the kernel calls it (`AUDIT_ARCH_I386`, `AUDIT_ARCH_ARM`).
#[cfg(target_arch = "x86_64")]
const FOREIGN_WAY: u32 = 0x4000_0003;
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN_WAY: u32 = 0x4000_0028;

#[cfg(target_arch = "x86_64")]
const FOREIGN: Calls = Calls {
    socket: [359, 360],
    absent: &[102, libc::SYS_io_uring_setup],
};
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN: Calls = Calls {
    socket: [281, 288],
    absent: &[102, libc::SYS_io_uring_setup],
};

/// Marks the numbers of 64-bit programs with 32-bit pointers.
const X32: u32 = 0x4000_0000;

/// Where a filter finds the number of a call, the way in which it is made, and its first argument.
const NUMBER: u32 = 0;
const WAY: u32 = 4;
const ARGUMENT: u32 = 16;

/// From now on, for this process and for all that it starts.
pub fn confine() -> io::Result<()> {
    sys::hide()?;
    sys::filter(&mut filter())
}

fn filter() -> Vec<sock_filter> {
    let (foreign, native) = (judge(&FOREIGN), judge(&NATIVE));
    let mut steps = vec![load(WAY), unless(FOREIGN_WAY, foreign.len())];
    steps.extend(foreign);
    steps.extend(native);
    steps
}

/// The whole verdict on calls that are made in one way.
fn judge(calls: &Calls) -> Vec<sock_filter> {
    let mut steps = vec![load(NUMBER), without(X32)];
    for number in calls.absent {
        steps.extend([unless(number_of(*number), 1), fail(libc::ENOSYS)]);
    }
    let [socket, pair] = calls.socket.map(number_of);
    steps.extend([when(socket, 2), when(pair, 1), allow(), load(ARGUMENT)]);
    for family in FAMILIES {
        steps.extend([unless(family.cast_unsigned(), 1), allow()]);
    }
    steps.push(fail(libc::EAFNOSUPPORT));
    steps
}

fn number_of(call: c_long) -> u32 {
    u32::try_from(call).expect("numbers of calls are small")
}

fn load(place: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, place)
}

fn without(bits: u32) -> sock_filter {
    step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !bits)
}

/// Leaves out the next steps if what was loaded is `value`.
fn when(value: u32, steps: u8) -> sock_filter {
    let compare = step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
    sock_filter {
        jt: steps,
        ..compare
    }
}

/// Leaves them out if it is not.
fn unless(value: u32, steps: usize) -> sock_filter {
    let compare = step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
    sock_filter {
        jf: u8::try_from(steps).expect("the verdicts are short"),
        ..compare
    }
}

fn allow() -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW)
}

fn fail(error: libc::c_int) -> sock_filter {
    let verdict = libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
    step(libc::BPF_RET | libc::BPF_K, verdict)
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).expect("codes are short"),
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn verdict(way: u32, number: c_long, argument: libc::c_int) -> u32 {
        let (steps, mut at, mut loaded) = (filter(), 0, 0);
        loop {
            let step = &steps[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => loaded &= step.k,
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if loaded == step.k { step.jt } else { step.jf });
                }
                _ => {
                    loaded = match step.k {
                        NUMBER => number_of(number),
                        WAY => way,
                        _ => argument.cast_unsigned(),
                    }
                }
            }
        }
    }

    #[test]
    fn few_kinds_of_sockets_are_open_in_whatever_way_they_are_asked_for() {
        let [refused, absent] = [libc::EAFNOSUPPORT, libc::ENOSYS]
            .map(|error| libc::SECCOMP_RET_ERRNO | error.cast_unsigned());
        let native = 0xc000_003e;
        for (way, calls) in [(native, &NATIVE), (FOREIGN_WAY, &FOREIGN)] {
            let marked = calls.socket.map(|number| number | c_long::from(X32));
            let numbers = calls.socket.into_iter().chain(marked);
            for (number, family) in numbers.flat_map(|n| (-1..64).map(move |f| (n, f))) {
                let open = FAMILIES.contains(&family);
                let verdict = verdict(way, number, family);
                assert_eq!(verdict == libc::SECCOMP_RET_ALLOW, open, "{way} {family}");
                assert_eq!(verdict == refused, !open, "{way} {family}");
            }
            for number in calls.absent {
                assert_eq!(verdict(way, *number, libc::AF_UNIX), absent);
            }
        }
        for number in [libc::SYS_read, libc::SYS_connect, 0x7fff] {
            let verdict = verdict(native, number, libc::AF_VSOCK);
            assert_eq!(verdict, libc::SECCOMP_RET_ALLOW);
        }
    }
}
