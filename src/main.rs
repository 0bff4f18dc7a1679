//! The binary: arguments in, exit code out. Everything else is in the library.

/// A server makes and drops small objects all the time, from several threads. glibc's allocator kept three times the memory after a storm,
/// and took a third of the processor time; docs/benchmarks.md has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the allocator reads when it starts: memory that nothing uses goes back to the system after five seconds instead of ten. A large
/// server goes from one storm into the next, and what the last one left is in the way (2,003 MB at the peak with 5,000 hosts). After one
/// second it was too soon: a push of one object among ten thousand took a seventh longer, because all had to be asked for again.
// Exporting a name is unsafe because it could be somebody else's. This one is the allocator's, which asks for just this: where a text is that
// ends with 0.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_OPTIONS: &[u8; 20] = b"dirty_decay_ms:5000\0";

fn main() -> std::process::ExitCode {
    portolan::cli::main()
}
