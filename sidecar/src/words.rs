//! Enums whose variants people read as words: in answers, statuses, logs and metrics.
//!
//! Each list is written once, with what a word means and what a person does about it; `docs/reference.md`
//! is made of the lists.

/// Declares such an enum, with `ALL`, `as_str`, `meaning` and `way_out`.
macro_rules! words {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $($(#[doc = $doc:literal])+ $word:ident: $way_out:literal,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $doc])+ $word,)+
        }

        impl $name {
            /// Each of them, in order.
            pub const ALL: &[Self] = &[$(Self::$word),+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                }
            }

            /// What it means, one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$word => concat!($($doc),+).trim_ascii(),)+
                }
            }

            /// What a person does about it, one sentence.
            pub fn way_out(self) -> &'static str {
                match self {
                    $(Self::$word => $way_out,)+
                }
            }
        }
    };
}

pub(crate) use words;
