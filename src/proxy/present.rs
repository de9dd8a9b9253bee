//! Which of the headers that admission cares about a request has, found in one pass.
//!
//! Most requests have hardly any of them, and asking the header map for each would cost a hash
//! every time.

use crate::base::message::Fields;

macro_rules! headers {
    ($($constant:ident = $bit:literal $name:literal,)*) => {
        $(pub(crate) const $constant: Present = Present(1 << $bit);)*

        /// The bit of a name, if admission cares about it.
        fn bit(name: &str) -> Present {
            // The compiler compares lengths first: a miss is a few instructions.
            match name {
                $($name => $constant,)*
                _ => Present(0),
            }
        }
    };
}

headers! {
    TE = 0 "te",
    VIA = 1 "via",
    UPGRADE = 2 "upgrade",
    FORWARDED = 3 "forwarded",
    CONNECTION = 4 "connection",
    KEEP_ALIVE = 5 "keep-alive",
    PROXY_CONNECTION = 6 "proxy-connection",
    TRANSFER_ENCODING = 7 "transfer-encoding",
    X_FORWARDED_FOR = 8 "x-forwarded-for",
    X_FORWARDED_HOST = 9 "x-forwarded-host",
}

/// Those that belong to a connection, and do not pass a gateway.
pub(crate) const HOP_BY_HOP: Present = Present(
    TE.0 | UPGRADE.0 | CONNECTION.0 | KEEP_ALIVE.0 | PROXY_CONNECTION.0 | TRANSFER_ENCODING.0,
);

/// A set of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Present(u16);

impl Present {
    /// Those of a request.
    pub(crate) fn of(fields: &Fields) -> Self {
        let bits = fields.iter().map(|(name, _)| bit(name.as_str()).0);
        Self(bits.fold(0, |all, one| all | one))
    }

    /// True if any of these is there.
    pub(crate) fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }
}

impl std::ops::BitOr for Present {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderName, HeaderValue};

    #[test]
    fn one_pass_finds_them_all() {
        let mut fields = Fields::default();
        for name in ["host", "te", "x-forwarded-for", "accept"] {
            let name = HeaderName::from_static(name);
            fields.append(name, HeaderValue::from_static("x"));
        }
        let present = Present::of(&fields);
        assert!(present.any(TE));
        assert!(present.any(X_FORWARDED_FOR | VIA));
        assert!(!present.any(CONNECTION | UPGRADE));
    }
}
