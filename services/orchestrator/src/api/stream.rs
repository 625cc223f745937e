//! Long answers: they end with their last item, with an error, or with the service.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, Stream};
use tokio_util::sync::CancellationToken;

/// Passes items on until one is the last. A stream that ends before, because the service stops or for any other reason,
/// ends with the error `cut`, so that no caller takes a cut for the end.
pub(crate) fn until_last<T: Send + 'static, E: Send + 'static>(
    items: BoxStream<'static, Result<T, E>>,
    stop: CancellationToken,
    is_last: fn(&T) -> bool,
    cut: impl FnOnce() -> E + Send + 'static,
) -> impl Stream<Item = Result<T, E>> + Send + 'static {
    stream::unfold(Some((items, stop, cut)), move |state| async move {
        let (mut items, stop, cut) = state?;
        let next = tokio::select! {
            biased;
            item = items.next() => item,
            () = stop.cancelled() => None,
        };
        Some(match next {
            Some(Ok(item)) if is_last(&item) => (Ok(item), None),
            Some(Ok(item)) => (Ok(item), Some((items, stop, cut))),
            Some(Err(e)) => (Err(e), None),
            None => (Err(cut()), None),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(
        items: BoxStream<'static, Result<u8, &'static str>>,
        stop: CancellationToken,
    ) -> Vec<Result<u8, &'static str>> {
        until_last(items, stop, |n| *n == 9, || "cut").collect().await
    }

    #[tokio::test]
    async fn ends_with_the_last_item_and_never_silently_before_it() {
        let stop = CancellationToken::new();
        let items = |v: Vec<u8>| stream::iter(v.into_iter().map(Ok)).boxed();
        assert_eq!(run(items(vec![1, 9, 2]), stop.clone()).await, [Ok(1), Ok(9)]);
        assert_eq!(run(items(vec![1]), stop.clone()).await, [Ok(1), Err("cut")]);
        stop.cancel();
        assert_eq!(run(stream::pending().boxed(), stop).await, [Err("cut")]);
    }
}
