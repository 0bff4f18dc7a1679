//! The binary: arguments in, exit code out. Everything else is in the library.

/// A server makes and drops small objects on every thread; glibc's allocator took a quarter of its time and gave little back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    portolan::cli::main()
}
