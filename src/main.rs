//! The binary: arguments in, exit code out. Everything else is in the library.

/// A server makes and drops small objects all the time, from several threads. glibc's allocator kept three times the memory after a storm,
/// and took a third of the processor time; docs/benchmarks.md has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    portolan::cli::main()
}
