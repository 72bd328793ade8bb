//! Bounds of what one coordinator holds and writes, beside those of `base::limits`.

/// Members of one group, those that only asked for a member id included; `group.max.size` can only lower it.
pub const GROUP_MEMBERS_MAX: usize = 100_000;
/// Groups of one coordinator; a further one is refused with COORDINATOR_NOT_AVAILABLE.
pub const GROUPS_MAX: usize = 1_000_000;
/// Records that one step of background work (expiry, deleted topics) writes; the rest follows in further steps.
pub const STEP_RECORDS_MAX: usize = 4_096;
/// Bytes of a record batch that its header and each record take beside keys and values.
pub const BATCH_OVERHEAD_BYTES: usize = 61;
pub const RECORD_OVERHEAD_BYTES: usize = 24;
/// Offsets and groups that one step of a sweep looks at.
pub const STEP_OFFSETS_MAX: usize = 65_536;
/// Offsets of one coordinator, committed and pending; a commit beyond is refused.
pub const OFFSETS_MAX: usize = 20_000_000;

/// Bytes that a record takes in a batch, or a little less than that.
pub fn batch_bytes_of(record: &crate::group::Write) -> usize {
    RECORD_OVERHEAD_BYTES + record.key.len() + record.value.as_ref().map_or(0, |value| value.len())
}
