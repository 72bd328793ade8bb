//! Bugs planted on purpose, which the power-loss tests must catch. In a shipped binary there is only `None`, and the
//! branches on it disappear.

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
    /// The bug named by `CASEMATE_PLANT`.
    #[cfg(feature = "failpoints")]
    pub fn from_environment() -> Plant {
        match std::env::var("CASEMATE_PLANT").as_deref() {
            Ok("skip-sync") => Plant::SkipSync,
            Ok("reply-before-sync") => Plant::ReplyBeforeSync,
            Ok("cut-below-watermark") => Plant::CutBelowWatermark,
            // A misspelt bug that nobody catches would look like one that nobody can catch. Other modules have their own.
            _ => Plant::None,
        }
    }

    #[cfg(not(feature = "failpoints"))]
    pub fn from_environment() -> Plant {
        Plant::None
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
