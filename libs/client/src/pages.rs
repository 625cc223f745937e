//! Following cursors: many items, a page at a time.

/// Items a page when many are fetched; a page is one answer and must fit in memory.
pub const PAGE: u32 = 200;

/// Follows cursors until `wanted` items are there or there are no more. `fetch` is given the size of
/// the page and the cursor; `show` gets each page. Returns the cursor of what was left out.
///
/// # Errors
/// The first failure of `fetch` or `show`.
pub async fn pages<T, E, F>(
    wanted: Option<u64>,
    mut fetch: impl FnMut(u32, String) -> F,
    mut show: impl FnMut(Vec<T>) -> Result<(), E>,
) -> Result<Option<String>, E>
where
    F: Future<Output = Result<(Vec<T>, String), E>>,
{
    let (mut cursor, mut left) = (String::new(), wanted.unwrap_or(u64::MAX));
    loop {
        let size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let (items, next) = fetch(size, cursor).await?;
        left = left.saturating_sub(items.len() as u64);
        show(items)?;
        if next.is_empty() {
            return Ok(None);
        }
        if left == 0 {
            return Ok(Some(next));
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(total: u32, wanted: Option<u64>) -> (Vec<u32>, Option<String>) {
        let mut seen = Vec::new();
        let fetch = |size: u32, cursor: String| async move {
            let from: u32 = cursor.parse().unwrap_or(0);
            let to = total.min(from + size);
            let next = if to < total { to.to_string() } else { String::new() };
            Ok::<_, std::convert::Infallible>(((from..to).collect::<Vec<_>>(), next))
        };
        let left = pages(wanted, fetch, |page| {
            seen.extend(page);
            Ok(())
        });
        let left = left.await.unwrap();
        (seen, left)
    }

    #[tokio::test]
    async fn pages_stop_at_the_limit_or_at_the_end() {
        for (total, wanted, got, more) in [
            (0, None, 0, false),
            (5, Some(10), 5, false),
            (450, None, 450, false),
            (450, Some(401), 401, true),
            (450, Some(450), 450, false),
        ] {
            let (seen, left) = collect(total, wanted).await;
            assert_eq!((seen.len(), left.is_some()), (got, more), "{total} {wanted:?}");
            assert!(seen.is_sorted());
        }
    }
}
