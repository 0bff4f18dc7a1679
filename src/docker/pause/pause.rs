//! The only process of a pod's sandbox: holds its namespaces, reaps what the pod leaves behind, and ends when told.
//!
//! Compiled on its own by build.rs, without a standard library, into a static program of about a kilobyte. Not a module of portolan.
#![no_std]
#![no_main]

use core::arch::asm;

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
const WNOHANG: usize = 1;
const SIG_BLOCK: usize = 0;

#[cfg(target_arch = "x86_64")]
mod calls {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod calls {
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
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

/// Where the kernel starts us.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    // Blocked signals wait until they are asked for, so none can be missed between two looks. As the first process of its namespace
    // it would otherwise not get SIGTERM at all.
    let signals: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const signals as usize;
    call(calls::RT_SIGPROCMASK, SIG_BLOCK, set, 0, 8);
    loop {
        let signal = call(calls::RT_SIGTIMEDWAIT, set, 0, 0, 8);
        if signal == SIGTERM as isize || signal == SIGINT as isize {
            call(calls::EXIT_GROUP, 0, 0, 0, 0);
        }
        // One SIGCHLD may stand for several children.
        while call(calls::WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {}
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        call(calls::EXIT_GROUP, 1, 0, 0, 0);
    }
}
