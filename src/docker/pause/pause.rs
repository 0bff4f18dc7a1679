//! The only process of a pod's sandbox: holds its namespaces, reaps what the pod leaves behind, and ends when told. The same program, run
//! beside it as `/pause connect PORT`, reaches a port of the pod for port-forward.
//!
//! Compiled on its own by build.rs, without a standard library, into a static program of a few kilobytes. Not a module of portolan.
#![no_std]
#![no_main]

use core::arch::asm;

const SIGINT: usize = 2;
const SIGKILL: usize = 9;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
const WNOHANG: usize = 1;
const SIG_BLOCK: usize = 0;
const AF_INET: usize = 2;
const AF_INET6: usize = 10;
const SOCK_STREAM: usize = 1;
const SHUT_WR: usize = 1;
/// How much is carried at a time, in bytes.
const BUFFER: usize = 16 * 1024;
/// Not filled first: that would need a function of a library that is not here.
type Buffer = core::mem::MaybeUninit<[u8; BUFFER]>;

#[cfg(target_arch = "x86_64")]
mod calls {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SHUTDOWN: usize = 48;
    pub const CLONE: usize = 56;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod calls {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const GETPID: usize = 172;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const SHUTDOWN: usize = 210;
    pub const CLONE: usize = 220;
    pub const WAIT4: usize = 260;
}

#[cfg(target_arch = "x86_64")]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the callers pass what each system call asks for; the kernel changes only rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the callers pass what each system call asks for; the kernel changes only x0.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, options(nostack));
    }
    result
}

// Where the kernel starts us: the number of arguments, and pointers to them, are on the stack.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call {main}", main = sym main);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x0, sp", "bl {main}", main = sym main);

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel put the number there, and that many pointers to texts that end with a zero byte.
    let (count, port) = unsafe { (*stack, *stack.add(3).cast::<*const u8>()) };
    // `/pause connect PORT`; nothing else has arguments.
    if count == 3 { connect(number(port)) } else { pause() }
}

fn exit(code: usize) -> ! {
    loop {
        call(calls::EXIT_GROUP, code, 0, 0, 0);
    }
}

/// Holds the namespaces until it is told to end.
fn pause() -> ! {
    // Blocked signals wait until they are asked for, so none can be missed between two looks. As the first process of its namespace
    // it would otherwise not get SIGTERM at all.
    let signals: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const signals as usize;
    call(calls::RT_SIGPROCMASK, SIG_BLOCK, set, 0, 8);
    loop {
        let signal = call(calls::RT_SIGTIMEDWAIT, set, 0, 0, 8);
        if signal == SIGTERM as isize || signal == SIGINT as isize {
            exit(0);
        }
        // One SIGCHLD may stand for several children.
        while call(calls::WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {}
    }
}

/// Carries bytes between standard input and output and a port on the loopback of this network namespace, where only a process inside
/// can reach it.
///
/// Standard error first says `+`, or the number of the error. Standard input is cut into pieces: two bytes for a length (big endian), and
/// that many bytes; the length zero is the end of that direction. The end of standard input itself means that nobody is interested any
/// more.
fn connect(port: u16) -> ! {
    let [high, low] = port.to_be_bytes();
    // struct sockaddr_in, and sockaddr_in6.
    let four: [u8; 16] = [AF_INET as u8, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let six: [u8; 28] =
        [AF_INET6 as u8, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let socket = match dial(AF_INET, &four) {
        socket @ 0.. => socket,
        error => match dial(AF_INET6, &six) {
            socket @ 0.. => socket,
            _ => fail(error),
        },
    } as usize;
    write(2, b"+".as_ptr(), 1);
    let parent = call(calls::GETPID, 0, 0, 0, 0) as usize;
    // One process for each direction: a side that does not read must not keep the other from being heard.
    let child = call(calls::CLONE, SIGCHLD, 0, 0, 0);
    if child == 0 {
        speak(socket);
        call(calls::KILL, parent, SIGKILL, 0, 0);
        exit(0);
    }
    let mut buffer = Buffer::uninit();
    let start = buffer.as_mut_ptr().cast::<u8>();
    loop {
        let read = call(calls::READ, socket, start as usize, BUFFER, 0);
        if read <= 0 || !write(1, start, read as usize) {
            break;
        }
    }
    if child > 0 {
        call(calls::KILL, child as usize, SIGKILL, 0, 0);
    }
    exit(0)
}

/// Standard input, to the socket. Returns when nobody is interested any more.
fn speak(socket: usize) {
    let mut buffer = Buffer::uninit();
    let start = buffer.as_mut_ptr().cast::<u8>();
    while read_all(start, 2) {
        // SAFETY: the two bytes have just been read.
        let length = unsafe { u16::from_be_bytes([*start, *start.add(1)]) };
        let mut left = usize::from(length);
        if left == 0 {
            call(calls::SHUTDOWN, socket, SHUT_WR, 0, 0);
        }
        while left > 0 {
            let piece = if left < BUFFER { left } else { BUFFER };
            // A pod that no longer reads may still have something to say.
            if !read_all(start, piece) {
                return;
            }
            write(socket, start, piece);
            left -= piece;
        }
    }
}

fn dial(family: usize, address: &[u8]) -> isize {
    let socket = call(calls::SOCKET, family, SOCK_STREAM, 0, 0);
    if socket < 0 {
        return socket;
    }
    match call(calls::CONNECT, socket as usize, address.as_ptr() as usize, address.len(), 0) {
        0 => socket,
        error => error,
    }
}

fn fail(error: isize) -> ! {
    let mut unit = 1000;
    while unit > 0 {
        let digit = b'0' + (-error / unit % 10) as u8;
        write(2, &raw const digit, 1);
        unit /= 10;
    }
    exit(1)
}

/// Fills the start of a buffer. False at the end.
fn read_all(start: *mut u8, length: usize) -> bool {
    let mut done = 0;
    while done < length {
        let read = call(calls::READ, 0, start as usize + done, length - done, 0);
        if read <= 0 {
            return false;
        }
        done += read as usize;
    }
    true
}

fn write(file: usize, start: *const u8, length: usize) -> bool {
    let mut done = 0;
    while done < length {
        let written = call(calls::WRITE, file, start as usize + done, length - done, 0);
        if written <= 0 {
            return false;
        }
        done += written as usize;
    }
    true
}

fn number(mut text: *const u8) -> u16 {
    let mut number: u16 = 0;
    // SAFETY: an argument ends with a zero byte, and reading stops there.
    while let digit @ b'0'..=b'9' = unsafe { *text } {
        number = number.wrapping_mul(10).wrapping_add(u16::from(digit - b'0'));
        text = text.wrapping_add(1);
    }
    number
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit(1)
}
