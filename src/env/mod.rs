//! The world outside the process behind traits: time, randomness and the disk, each with its real implementation; and
//! the terminal.
//!
//! Code above takes these as values, so that a test can hold the clock still, replay the dice and cut the power. Nothing
//! here decides anything, and no other module asks the operating system for the time or for random bytes.

mod clock;
mod disk;
mod entropy;
pub mod failpoint;
mod lock;
#[cfg(any(test, feature = "failpoints"))]
pub mod sim_disk;
mod terminal;

pub use clock::{Clock, Stopwatch, SystemClock};
pub use disk::{
    DIRECT_ALIGN, Disk, DiskFile, OpenMode, RealDisk, create_direct, forget_cached, free_bytes, leave_direct,
    open_direct,
};
#[cfg(any(test, feature = "failpoints"))]
pub use entropy::SeededEntropy;
pub use entropy::{Entropy, SystemEntropy};
pub use lock::{LockError, LockGuard, lock_dir};
#[cfg(any(test, feature = "failpoints"))]
pub use sim_disk::SimDisk;
#[cfg(test)]
pub use terminal::at_terminal;
pub use terminal::{read_hidden, terminal};
