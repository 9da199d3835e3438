//! Filters and sort orders: what they ask about has to be readable.

use latchkey_protocol::Relation;

use super::*;

fn resource(name: &str, relations: &[(&str, &[&str])]) -> Resource {
    let relation = |targets: &[&str]| match targets {
        ["*"] => Relation::Any("*".to_owned()),
        targets => Relation::Some(targets.iter().map(|&target| target.to_owned()).collect()),
    };
    let relations = relations.iter().map(|&(field, to)| (field.to_owned(), relation(to)));
    Resource { name: name.to_owned(), relations: relations.collect() }
}

/// Posts point at authors and, within their sections, at media; authors at companies.
fn account(scoped: &[(&str, &[&str])]) -> Replica {
    replica_with(
        scoped,
        &[
            resource(
                "posts",
                &[("author", &["authors"]), ("sections.cover", &["_media"]), ("any", &["*"])],
            ),
            resource("authors", &[("company", &["companies"])]),
            resource("companies", &[]),
            resource("_media", &[]),
        ],
    )
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Filters by related objects used to answer questions about what the key may not read.
#[test]
fn filter_on_a_related_object_needs_read_on_it() {
    let posts = account(&[("posts", &["read"])]);
    let authors = account(&[("posts", &["read"]), ("authors", &["read"])]);
    let everything = account(&[("*", &["read"])]);
    let flotiq = flotiq();
    for (parameter, value, by_posts, by_authors) in [
        // As Flotiq's own SDK sends them.
        ("filters", r#"{"title":{"type":"contains","filter":"x"}}"#, 200, 200),
        (
            "filters",
            r#"{"title":{"type":"contains","filter":"author"},"internal.createdAt":{"type":"greaterThan","filter":"2026"}}"#,
            200,
            200,
        ),
        ("filters", r#"{"email":{"type":"equals","filter":"a.b@example.com"}}"#, 200, 200),
        ("filters", "{}", 200, 200),
        ("order_by", "title", 200, 200),
        ("order_by", "internal.createdAt", 200, 200),
        ("order_by", "-title,internal.updatedAt desc", 200, 200),
        ("order_by", "", 200, 200),
        ("filters", r#"{"author":{"email":{"startsWith":"a"}}}"#, 403, 200),
        ("filters", r#"{"author.email":{"type":"startsWith","filter":"a"}}"#, 403, 200),
        ("filters", r#"{"author[*].email":{"type":"startsWith","filter":"a"}}"#, 403, 200),
        ("filters", r#"{"author[0].email":{}}"#, 403, 200),
        ("filters", r#"{"author/email":{}}"#, 403, 200),
        ("filters", r#"{"author__email":{}}"#, 403, 200),
        ("filters", r#"{"author->email":{}}"#, 403, 200),
        ("filters", r#"{"\u0061uthor.email":{}}"#, 403, 200),
        ("filters", r#"{"title":{},"author.email":{},"title":{}}"#, 403, 200),
        ("filters", r#"{"title":{"x":1},"title":{"author":{"email":1}}}"#, 403, 200),
        (
            "filters",
            r#"{"AND":[{"title":{"eq":"x"}},{"OR":[{"author":{"email":"a"}}]}]}"#,
            403,
            200,
        ),
        ("filters", r#"[{"field":"author.email","type":"startsWith","filter":"a"}]"#, 403, 200),
        ("filters", r#"{"author":{"company":{"name":"x"}}}"#, 403, 403),
        ("filters", r#"{"author.company.name":{}}"#, 403, 403),
        ("filters", r#"{"sections":{"cover":{"url":"x"}}}"#, 403, 403),
        ("filters", r#"{"sections[*].cover.url":{}}"#, 403, 403),
        ("filters", r#"{"cover.url":{}}"#, 403, 403),
        ("filters", r#"{"any.name":{}}"#, 403, 403),
        ("order_by", "author.email", 403, 200),
        ("order_by", "-author.email", 403, 200),
        ("order_by", "title,author.email", 403, 200),
        ("order_by", "title asc, author.email desc", 403, 200),
        ("order_by", "author__email", 403, 200),
        ("order_by", "author.company.name", 403, 403),
        ("order_by", "sections.cover.url", 403, 403),
        ("order_by", "any.x", 403, 403),
        ("filters", r#"{"title":{"type":"contains","filter":"author.email"}}"#, 200, 200),
        ("filters", r#"{"url":{"type":"equals","filter":"https://ex.com/author/7"}}"#, 200, 200),
        ("filters", r#"{"internal.author":{"type":"equals","filter":"x"}}"#, 200, 200),
        ("filters", r#"{"internal":{"author":{"x":1}}}"#, 200, 200),
        ("filters", r#"{"author_name":{"type":"contains","filter":"x"}}"#, 200, 200),
        ("order_by", "internal.author", 200, 200),
        ("filters", r#"{"%61uthor.email":{}}"#, 403, 200),
        ("filters", r#"{"AUTHOR.email":{}}"#, 403, 200),
        ("filters", r#"{"author_some":{"email":"x"}}"#, 403, 200),
        ("filters", r#"{"path":["author","email"],"operator":"Like"}"#, 403, 200),
        ("filters", r#"{"path":["author","company","name"]}"#, 403, 403),
        ("filters", r#"[["author","=","x"]]"#, 403, 200),
        ("filters", r#"{"relation":"author","field":"email"}"#, 403, 200),
        ("filters", r#"{"query":"author.email:smith AND title:x"}"#, 403, 200),
        ("filters", r#"{"$expr":{"$eq":["$author.email","a"]}}"#, 403, 200),
        ("filters", r#"{"json":"{\"author\":{\"company\":{\"name\":1}}}"}"#, 403, 403),
        ("filters", r#"{"auth*.email":{}}"#, 403, 403),
        ("order_by", "AUTHOR.email", 403, 200),
        ("order_by", "%61uthor.email", 403, 200),
        ("order_by", "authｏr.email", 403, 200),
        ("order_by", "author_email_ASC", 403, 200),
        ("order_by", "DESC_author_company_name", 403, 403),
        ("filters", "", 400, 400),
        ("filters", "title", 400, 400),
        ("filters", r#""author.email""#, 400, 400),
        ("filters", r#"{"title":"#, 400, 400),
        ("filters", r#"{"title":1}x"#, 400, 400),
        ("filters", "null", 200, 200),
    ] {
        for path in ["/api/v1/content/posts", "/api/v1/search"] {
            let search = if path.ends_with("search") { "&content_type[]=posts" } else { "" };
            let path = format!("{path}?page=1&{parameter}={}{search}", encoded(value));
            assert_eq!(status(&flotiq, &posts, "GET", &path, SCOPED), by_posts, "{value}");
            assert_eq!(status(&flotiq, &authors, "GET", &path, SCOPED), by_authors, "{value}");
            let by_everyone = if by_posts == 400 { 400 } else { 200 };
            assert_eq!(status(&flotiq, &everything, "GET", &path, SCOPED), by_everyone, "{value}");
            assert_eq!(status(&flotiq, &posts, "GET", &path, RO), by_everyone, "{value}");
        }
    }
    for query in [
        "filters=%7B%7D&filters=%7B%22author.email%22:1%7D",
        "filters[]=%7B%22author.email%22:1%7D",
        "order_by=title&order_by[]=author.email",
        "order_by[1]=author.email",
    ] {
        let path = format!("/api/v1/content/posts?{query}");
        assert_eq!(status(&flotiq, &posts, "GET", &path, SCOPED), 403, "{query}");
        assert_eq!(status(&flotiq, &authors, "GET", &path, SCOPED), 200, "{query}");
    }
    for query in [
        "filters[title]=x",
        "Filters=%7B%7D",
        "orderBy=author.email",
        "filters={%zz}",
        "filters=%ff",
    ] {
        let path = format!("/api/v1/content/posts?{query}");
        assert_eq!(status(&flotiq, &posts, "GET", &path, SCOPED), 400, "{query}");
    }
}

/// A type that is not registered may lead anywhere; its own fields may be filtered all the same.
#[test]
fn filter_on_a_type_that_is_not_registered_may_not_lead_on() {
    let (flotiq, replica) = (flotiq(), replica(&[("posts", &["read"])]));
    for (query, expected) in [
        (format!("filters={}", encoded(r#"{"title":{"type":"contains","filter":"a.b"}}"#)), 200),
        ("order_by=internal.createdAt".to_owned(), 200),
        ("order_by=title".to_owned(), 200),
        ("order_by=author.email".to_owned(), 403),
        (
            format!("filters={}", encoded(r#"{"author.email":{"type":"contains","filter":"a"}}"#)),
            403,
        ),
        (format!("filters={}", encoded(r#"{"author":{"email":{"startsWith":"a"}}}"#)), 403),
    ] {
        let path = format!("/api/v1/content/posts?{query}");
        assert_eq!(status(&flotiq, &replica, "GET", &path, SCOPED), expected, "{query}");
        assert_eq!(status(&flotiq, &replica, "GET", &path, RO), 200, "{query}");
    }
}

fn graphql(replica: &Replica, body: &str) -> u16 {
    let flotiq = flotiq();
    let more = [("x-auth-token", SCOPED), ("content-type", "application/json")];
    let headers = headers("POST", "/api/graphql", &more);
    status_of(&flotiq, &judge_body(&flotiq, replica, &headers, Body::Whole(body.as_bytes())))
}

#[test]
fn argument_that_names_a_relation_needs_read_on_the_related_type() {
    let posts = account(&[("posts", &["read"])]);
    let authors = account(&[("posts", &["read"]), ("authors", &["read"])]);
    for (query, variables, by_posts, by_authors) in [
        ("{postsList(limit: 2, page: 1){title}}", "{}", 200, 200),
        (
            r#"{postsList(filter: {title: {type: \"contains\", filter: \"author\"}}){title}}"#,
            "{}",
            200,
            200,
        ),
        (
            r#"{postsList(order_by: \"internal.createdAt\", order_direction: ASC){title}}"#,
            "{}",
            200,
            200,
        ),
        (r#"{posts(id: \"author-1\"){title}}"#, "{}", 200, 200),
        (
            r#"query($f: Filter = {title: {eq: \"x\"}}){postsList(filter: $f){title}}"#,
            "{}",
            200,
            200,
        ),
        (
            "query($f: Filter){postsList(filter: $f){title}}",
            r#"{"f":{"title":{"eq":"x"}}}"#,
            200,
            200,
        ),
        (r#"{postsList(filter: {author: {email: {startsWith: \"a\"}}}){title}}"#, "{}", 403, 200),
        (
            r#"{postsList(filter: {AND: [{title: {eq: 1}}, {author: {email: 1}}]}){title}}"#,
            "{}",
            403,
            200,
        ),
        (r#"{postsList(where: {author: {email: {startsWith: \"a\"}}}){title}}"#, "{}", 403, 200),
        (r#"{postsList(author: {email: {startsWith: \"a\"}}){title}}"#, "{}", 403, 200),
        (r#"{postsList(order_by: \"author.email\"){title}}"#, "{}", 403, 200),
        (r#"{postsList(order_by: \"\\u0061uthor.email\"){title}}"#, "{}", 403, 200),
        (r#"{postsList(order_by: \"\"\"author.email\"\"\"){title}}"#, "{}", 403, 200),
        (r#"{postsList(order_by: [\"title\", \"-author.email\"]){title}}"#, "{}", 403, 200),
        (r#"{postsList(sort: {field: \"author.email\"}){title}}"#, "{}", 403, 200),
        ("{postsList(order_by: author_ASC){title}}", "{}", 403, 200),
        ("{postsList(order_by: {author: {email: ASC}}){title}}", "{}", 403, 200),
        (r#"query($f: F = {author: {email: 1}}){postsList(filter: $f){title}}"#, "{}", 403, 200),
        ("query($f: F){postsList(filter: $f){title}}", r#"{"f":{"author":{"email":1}}}"#, 403, 200),
        (
            "query($f: F){postsList(filter: {AND: [$f]}){title}}",
            r#"{"f":{"author":{"email":1}}}"#,
            403,
            200,
        ),
        (
            "query($f: [F]){postsList(filter: {OR: $f}){title}}",
            r#"{"f":[{"title":1},{"author":1}]}"#,
            403,
            200,
        ),
        ("query($o: String){postsList(order_by: $o){title}}", r#"{"o":"author.email"}"#, 403, 200),
        ("query($e: E){postsList(filter: {author: {email: $e}}){title}}", r#"{"e":"x"}"#, 403, 200),
        (
            "query($f: F){postsList(filter: $f){title}}",
            r#"{"f":{"title":1},"f":{"author":1}}"#,
            403,
            200,
        ),
        ("{a: postsList{title} b: postsList(filter: {author: {x: 1}}){title}}", "{}", 403, 200),
        (
            "query A{postsList{title}} query B{postsList(filter: {author: {x: 1}}){title}}",
            "{}",
            403,
            200,
        ),
        (
            "{postsList{...F}} fragment F on posts{sections(filter: {author: {x: 1}}){title}}",
            "{}",
            403,
            200,
        ),
        (r#"{postsList(filter: {author: {company: {name: \"x\"}}}){title}}"#, "{}", 403, 403),
        (r#"{posts(title: \"author\"){title}}"#, "{}", 200, 200),
        (r#"{posts(search: \"the author of it\"){title}}"#, "{}", 200, 200),
        (
            r#"{postsList(where: {slug: {eq: \"author/cover\"}, author_id: \"x\"}){title}}"#,
            "{}",
            200,
            200,
        ),
        ("query($o:O){postsList(orderBy:$o){title}}", r#"{"o":"author_email_ASC"}"#, 403, 200),
        (
            "query($o:O){postsList(orderBy:$o){title}}",
            r#"{"o":["title_ASC","author_email_ASC"]}"#,
            403,
            200,
        ),
        ("{postsList(orderBy: author_company_name_ASC){title}}", "{}", 403, 403),
        ("{postsList(sort: {fields: [author___company___name]}){title}}", "{}", 403, 403),
        ("{postsList(orderBy: DESC_author_email){title}}", "{}", 403, 200),
        ("{postsList(orderBy: AUTHOR_EMAIL_ASC){title}}", "{}", 403, 200),
        ("{postsList(orderBy: {author_email: ASC}){title}}", "{}", 403, 200),
        (r#"{postsList(where: {author_some: {email: \"x\"}}){title}}"#, "{}", 403, 200),
        (r#"{postsList(author_some: {email: \"x\"}){title}}"#, "{}", 403, 200),
        (r#"{postsList(where: {author: {company_is: {name: \"x\"}}}){title}}"#, "{}", 403, 403),
        (
            "query($w:W){postsList(where: $w){title}}",
            r#"{"w":{"author_every":{"email":"x"}}}"#,
            403,
            200,
        ),
        (r#"{postsList(filter: \"{\\\"author.email\\\":1}\"){title}}"#, "{}", 403, 200),
        (
            "query($f:S){postsList(filter: $f){title}}",
            r#"{"f":"{\"author\": {\"company\": {}}}"}"#,
            403,
            403,
        ),
        (r#"{postsList(filter: \"{author: {email: 1}}\"){title}}"#, "{}", 403, 403),
        (r#"{postsList(where: {path: [\"author\", \"email\"]}){title}}"#, "{}", 403, 200),
        (
            r#"{postsList{title} posts @filter(by: {author: {email: \"x\"}}) {title}}"#,
            "{}",
            403,
            200,
        ),
        ("{postsList{title @sort(by: author_email)}}", "{}", 403, 200),
        (r#"{postsList(filter: {sections: {cover: {url: \"x\"}}}){title}}"#, "{}", 403, 403),
        ("{postsList(filter: {any: {x: 1}}){title}}", "{}", 403, 403),
        ("{postsList{author(filter: {name: 1}){name}}}", "{}", 403, 200),
        ("{postsList{author(filter: {company: {name: 1}}){name}}}", "{}", 403, 403),
    ] {
        let body = format!(r#"{{"query":"{query}","variables":{variables}}}"#);
        assert_eq!(graphql(&posts, &body), by_posts, "{query} {variables}");
        assert_eq!(graphql(&authors, &body), by_authors, "{query} {variables}");
        let batch = format!(r#"[{{"query":"{{postsList{{title}}}}"}},{body}]"#);
        assert_eq!(graphql(&posts, &batch), by_posts, "{batch}");
    }
}

#[test]
fn variables_that_cannot_be_read_are_400() {
    let posts = account(&[("posts", &["read"])]);
    for (variables, expected) in [
        ("{}", 200),
        ("[]", 200),
        ("null", 200),
        (r#""""#, 200),
        (r#""{\"f\":{\"author\":1}}""#, 400),
        (r#"{"f":"#, 400),
    ] {
        let query = "query($f: F){postsList(filter: $f){title}}";
        let body = format!(r#"{{"query":"{query}","variables":{variables}}}"#);
        assert_eq!(graphql(&posts, &body), expected, "{variables}");
        let path =
            format!("/api/graphql?query={}&variables={}", encoded(query), encoded(variables));
        assert_eq!(status(&flotiq(), &posts, "GET", &path, SCOPED), expected, "{variables}");
    }
    let query = encoded("query($f: F){postsList(filter: $f){title}}");
    let variables = encoded(r#"{"f":{"author":{"email":1}}}"#);
    let path = format!("/api/graphql?query={query}&variables={variables}");
    assert_eq!(status(&flotiq(), &posts, "GET", &path, SCOPED), 403);
}

/// A variable is looked at as often as it stands somewhere: that is bounded, too.
#[test]
fn arguments_that_take_too_long_are_400() {
    let posts = account(&[("posts", &["read"])]);
    let large: Vec<String> = (0..5_000).map(|index| format!(r#"{{"a{index}":1}}"#)).collect();
    let fields: String =
        (0..500).map(|index| format!("p{index}: postsList(filter: $f){{id}} ")).collect();
    let body = format!(
        r#"{{"query":"query($f: F){{{fields}}}","variables":{{"f":[{}]}}}}"#,
        large.join(",")
    );
    assert_eq!(graphql(&posts, &body), 400);
    let keys: String = (0..3_000).map(|index| format!("{{a{index}:{{b:{{c:1}}}}}}")).collect();
    let body = format!(r#"{{"query":"{{postsList(filter:[{keys}]){{id}}}}"}}"#);
    assert_eq!(graphql(&posts, &body), 400, "more tokens than are judged");
    let keys: String = (0..1_000).map(|index| format!("{{a{index}:{{b:{{c:1}}}}}}")).collect();
    let body = format!(r#"{{"query":"{{postsList(filter:[{keys}]){{id}}}}"}}"#);
    assert_eq!(graphql(&posts, &body), 200, "a large filter is judged");
}

/// A name of 100,000 signs used to take a minute, and a path of 25,000 parts a third of a second.
#[expect(clippy::disallowed_methods, reason = "tests are native, and this one measures")]
#[test]
fn hostile_names_take_no_longer_than_to_read_them() {
    let posts = account(&[("posts", &["read"])]);
    let fill = |unit: &str| unit.repeat(200_000 / unit.len());
    for (field, unit) in
        [("a", "_"), ("a", "a_"), ("a", "author_"), ("orderBy", "_"), ("orderBy", "author_")]
    {
        let body = format!(r#"{{"query":"{{postsList({field}: x{}){{title}}}}"}}"#, fill(unit));
        let begin = std::time::Instant::now();
        graphql(&posts, &body);
        assert!(begin.elapsed().as_secs() < 3, "{field} {unit}: {:?}", begin.elapsed());
    }
    for (field, unit) in [
        ("orderBy", "author,"),
        ("orderBy", "author."),
        ("orderBy", "title "),
        ("orderBy", "a.b."),
        ("orderBy", "{"),
        ("orderBy", "["),
        ("orderBy", "*a"),
        ("orderBy", "author_"),
        ("search", "author.email "),
        ("search", "_"),
        ("search", "."),
        ("search", "%25"),
    ] {
        let body = format!(
            r#"{{"query":"query($x: S){{postsList({field}: $x){{title}}}}","variables":{{"x":"{}"}}}}"#,
            fill(unit)
        );
        let begin = std::time::Instant::now();
        graphql(&posts, &body);
        let query = format!("order_by={0}", fill(unit).get(..50_000).unwrap_or_default());
        let _ = status(
            &flotiq(),
            &posts,
            "GET",
            &format!("/api/v1/content/posts?{}", query.replace(' ', "%20")),
            SCOPED,
        );
        assert!(begin.elapsed().as_secs() < 3, "{field} {unit}: {:?}", begin.elapsed());
    }
    // JSON in a text in JSON: deep enough to fill the stack if it were followed.
    let mut nested = r#"{\"author\":1}"#.to_owned();
    for _ in 0..6 {
        let deep = format!(
            "{}{}{}",
            r#"{\"a\":"#.repeat(100),
            serde_json::Value::from(nested),
            "}".repeat(100)
        );
        nested = deep;
    }
    let body = serde_json::json!({"query": "query($x: S){postsList(filter: $x){title}}", "variables": {"x": nested}});
    assert_ne!(graphql(&posts, &body.to_string()), 200);
}
