//! Which allocator a process uses that is made of this library: every service, and the command.
//!
//! A job costs the orchestrator some hundred small pieces of memory, taken by one thread and given back by another. With
//! jemalloc that takes a third less of its processor time than with glibc's allocator, and no more memory
//! (docs/benchmarks.md). `.cargo/config.toml` has its settings: two arenas however many processors a node has, and pages
//! that are not needed go back to the system after a second.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
