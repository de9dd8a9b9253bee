//! Writing several slices at once, in the cheaper of two ways.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Up to so many bytes are gathered into one slice: `writev` costs the kernel more than the copy.
const SMALL: usize = 1024;

/// Writes the slices in their order; returns how many bytes were taken.
pub(crate) fn poll_write<W: AsyncWrite>(
    stream: Pin<&mut W>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let length: usize = slices.iter().map(|slice| slice.len()).sum();
    if length > SMALL {
        return stream.poll_write_vectored(cx, slices);
    }
    let mut gathered = [0; SMALL];
    let mut rest = gathered.as_mut_slice();
    for slice in slices {
        let (part, after) = rest.split_at_mut(slice.len());
        part.copy_from_slice(slice);
        rest = after;
    }
    stream.poll_write(cx, gathered.get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slices_arrive_in_order_whatever_their_length() {
        for length in [0, 1, 300, 1000, 5000] {
            let parts = [vec![b'a'; length], Vec::new(), vec![b'b'; 24]];
            let slices = parts.each_ref().map(|part| IoSlice::new(part));
            let mut written = Vec::new();
            let count = std::future::poll_fn(|cx| poll_write(Pin::new(&mut written), cx, &slices));
            assert_eq!(count.await.expect("memory takes all"), length + 24);
            assert_eq!(written, parts.concat());
        }
    }
}
