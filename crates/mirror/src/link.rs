//! The `Link` header of paged answers (RFC 8288): the registry's, made to lead back to us.

/// The registry's link to the next page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry's `Link` header `{0}` leads to its next page in a way that cannot be passed on")]
pub(crate) struct BadLink(String);

/// Our `Link` header for the registry's: same next page, at the path that the client asked for, with its `ns`.
/// None if there is no next page.
pub(crate) fn rewrite(link: &str, path: &str, ns: Option<&str>) -> Result<Option<String>, BadLink> {
    let Some(target) = next(link) else { return Ok(None) };
    // Without a query the next page would be the first one again.
    let (_, query) = target.split_once('?').ok_or_else(|| BadLink(link.to_owned()))?;
    let query = query.split('#').next().unwrap_or_default();
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("ns="))
        .map(str::to_owned)
        .collect();
    if pairs.is_empty() {
        return Err(BadLink(link.to_owned()));
    }
    if let Some(ns) = ns {
        pairs.push(format!(
            "ns={}",
            percent_encoding::utf8_percent_encode(ns, percent_encoding::NON_ALPHANUMERIC)
        ));
    }
    Ok(Some(format!("<{path}?{}>; rel=\"next\"", pairs.join("&"))))
}

/// The target of the link whose relation is `next`.
fn next(link: &str) -> Option<&str> {
    let mut rest = link;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        // A comma in a quoted parameter would end these too early; no relation that matters has one.
        let (parameters, others) = after.split_once(',').unwrap_or((after, ""));
        if parameters.split(';').any(is_next) {
            return Some(target);
        }
        rest = others;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_back_to_us() {
        let path = "/v2/quay.io/org/model/tags/list";
        let ours = |query: &str| Ok(Some(format!("<{path}?{query}>; rel=\"next\"")));
        for (link, query) in [
            ("</v2/org/model/tags/list?last=b&n=2>; rel=\"next\"", "last=b&n=2"),
            (
                "<https://quay.io/v2/org/model/tags/list?n=2&last=b%2Cc>;rel=next",
                "n=2&last=b%2Cc",
            ),
            (
                "<https://a/?x=1>; rel=prev, <https://a/?x=2#end>; title=\"t\"; REL=\"last Next\"",
                "x=2",
            ),
            ("</v2/x?ns=evil.example&next_page=abc>; rel=\"next\"", "next_page=abc"),
        ] {
            assert_eq!(rewrite(link, path, None), ours(query), "{link}");
        }
        let link = "</v2/org/model/tags/list?last=b>; rel=\"next\"";
        assert_eq!(
            rewrite(link, path, Some("localhost:5000")),
            ours("last=b&ns=localhost%3A5000")
        );
    }

    #[test]
    fn no_next_page() {
        for link in [
            "",
            "<a?b=c>",
            "<a?b=c>; rel=prev",
            "a?b=c; rel=next",
            "<a?b=c; rel=next",
            "<a>; rel=\"nextly\"",
        ] {
            assert_eq!(rewrite(link, "/p", None), Ok(None), "{link}");
        }
    }

    #[test]
    fn a_next_page_that_is_not_in_the_query_is_an_error() {
        for link in [
            "</v2/page/2>; rel=next",
            "</v2/page?>; rel=next",
            "</v2/page?ns=a>; rel=next",
        ] {
            assert_eq!(rewrite(link, "/p", None), Err(BadLink(link.to_owned())), "{link}");
        }
    }
}
