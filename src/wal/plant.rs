//! Bugs planted on purpose, which the tests must catch: power loss in memory, and the real process under strace. In a
//! shipped binary there is only `None`, and the branches on it disappear.

use super::error::OpenError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    None,
    /// Entries are reported as synced without a sync.
    #[cfg(any(test, feature = "failpoints"))]
    SkipSync,
    /// Entries are reported as synced before they are written.
    #[cfg(any(test, feature = "failpoints"))]
    ReplyBeforeSync,
    /// Recovery cuts at the first break of the chain, whatever the watermark says.
    #[cfg(any(test, feature = "failpoints"))]
    CutBelowWatermark,
}

impl Plant {
    /// The bug named by `CASEMATE_PLANT`. A name that is none is an error: a bug that was never planted would look like
    /// one that nobody can catch.
    #[cfg(feature = "failpoints")]
    pub fn from_environment() -> Result<Plant, OpenError> {
        use std::env::VarError;
        match std::env::var("CASEMATE_PLANT") {
            Err(VarError::NotPresent) => Ok(Plant::None),
            Err(VarError::NotUnicode(name)) => Err(OpenError::Plant(name.display().to_string())),
            Ok(name) => Plant::named(&name).ok_or(OpenError::Plant(name)),
        }
    }

    #[cfg(not(feature = "failpoints"))]
    pub fn from_environment() -> Result<Plant, OpenError> {
        Ok(Plant::None)
    }

    #[cfg(feature = "failpoints")]
    fn named(name: &str) -> Option<Plant> {
        match name {
            "skip-sync" => Some(Plant::SkipSync),
            "reply-before-sync" => Some(Plant::ReplyBeforeSync),
            "cut-below-watermark" => Some(Plant::CutBelowWatermark),
            _ => None,
        }
    }

    pub fn skips_sync(self) -> bool {
        #[cfg(any(test, feature = "failpoints"))]
        return self == Plant::SkipSync;
        #[cfg(not(any(test, feature = "failpoints")))]
        false
    }

    pub fn replies_early(self) -> bool {
        #[cfg(any(test, feature = "failpoints"))]
        return self == Plant::ReplyBeforeSync;
        #[cfg(not(any(test, feature = "failpoints")))]
        false
    }

    pub fn cuts_anything(self) -> bool {
        #[cfg(any(test, feature = "failpoints"))]
        return self == Plant::CutBelowWatermark;
        #[cfg(not(any(test, feature = "failpoints")))]
        false
    }
}
