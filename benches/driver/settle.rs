//! Waits until the disk has digested what was written before: a virtual disk goes on writing long after it has said that
//! everything is safe, and makes later syncs wait for it. What is measured next would pay for what was measured before.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// One look at the disk: a write of this size and a sync, every so often.
const BYTES: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(5);
/// Looks in a row of which none may take longer than this.
const LOOKS: usize = 600;
const QUIET: Duration = Duration::from_millis(6);

/// Seconds until the disk was quiet, and the median and the longest of the last looks in milliseconds. Gives up, and says
/// so by the longest one, after `limit`.
pub fn settle(folder: &Path, limit: Duration) -> io::Result<(f64, f64, f64)> {
    let path = folder.join(".settle");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    let block = vec![7; BYTES];
    file.write_all_at(&block, 0)?;
    file.sync_all()?;
    let began = Instant::now();
    let mut looks = Vec::with_capacity(LOOKS);
    while looks.len() < LOOKS {
        let look = Instant::now();
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        let took = look.elapsed();
        if took > QUIET && began.elapsed() < limit {
            looks.clear();
        }
        looks.push(took);
        std::thread::sleep(PAUSE);
    }
    std::fs::remove_file(&path)?;
    looks.sort_unstable();
    let ms = |at: usize| looks[at].as_secs_f64() * 1000.0;
    Ok((began.elapsed().as_secs_f64(), ms(LOOKS / 2), ms(LOOKS - 1)))
}
