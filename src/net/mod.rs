//! Byte streams between machines, below any protocol: frames with a length before them, vectored writes, sockets, host
//! names.
//!
//! Nothing here knows what the bytes mean or who is at the other end. Memory grows with what has arrived, never with a
//! claimed length.

mod frame;
mod resolve;
mod socket;
mod transport;

pub use frame::{FrameError, FrameReader};
pub use resolve::{Names, ResolveError};
pub use socket::{bind, has_hung_up, pause_after, tune};
pub use transport::{Progress, Transport};
