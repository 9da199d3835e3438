//! Forms: each is taken once, and the return key does nothing that its own button would not.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode, header};

use super::{Who, World, csrf, origin, routes, secret, sign_in};
use crate::panel::drafts::page_of;
use crate::session::Needs;
use crate::store::{AccountPatch, Page, Role, accounts, keys, sessions};
use crate::time::Time;

const OWNER: Who = Who::Member(Role::Owner);

impl World {
    /// Sends a form as someone, and returns the status and where it leads.
    async fn post(&self, path: &str, who: Who, fields: &str) -> (StatusCode, String) {
        let form = format!("{}&{fields}", csrf(who));
        let (status, location, _) = self.send(&Method::POST, path, who, &form, &[]).await;
        (status, location)
    }

    async fn page(&self, path: &str, who: Who) -> String {
        self.send(&Method::GET, path, who, "", &[]).await.2
    }

    /// Returns the names of the account's keys that people made, beside the one that there is.
    async fn made(&self) -> Vec<String> {
        let all = |db: &rusqlite::Connection| {
            keys::list(db, "acme", &Page::everything(), Time::now().as_ms())
        };
        let all = self.app.store.read(all).await.unwrap();
        all.into_iter().skip(1).map(|key| key.name).collect()
    }
}

/// Returns the token that a page shows.
fn token(page: &str) -> Option<&str> {
    page.split_once("id=\"token\" class=\"secret\">")?.1.split('<').next()
}

/// Forms used to begin with "Remove rule": the return key in the name removed the first rule.
#[tokio::test]
async fn first_button_of_each_form_is_its_own() {
    let world = World::new().await;
    let mut forms = 0;
    for route in routes().into_iter().filter(|route| route.method == Method::GET) {
        let who = if route.needs == Needs::Nothing { Who::Nobody } else { Who::Operator };
        let page = world.page(&world.path(&route, "acme"), who).await;
        for form in page.split("<form method=\"post\"").skip(1) {
            let form = form.split("</form>").next().unwrap();
            let (_, button) = form.split_once("<button").unwrap();
            let button = button.split_once('>').unwrap().0;
            let is_own = !button.contains("remove-") && !button.contains("add-");
            assert!(is_own, "{}: {button}", route.path);
            forms += 1;
        }
    }
    assert!(forms > 40, "{forms}");
}

/// A second click used to make a second key, whose token nobody saw.
#[tokio::test]
async fn form_that_is_sent_again_has_one_effect_and_the_same_answer() {
    let world = World::new().await;
    let patch = AccountPatch { name: None, plan: Some("growth".to_owned()) };
    let grown = world.app.store.change(origin(), move |c| accounts::edit(c, "acme", &patch));
    grown.await.unwrap();
    let path = "/accounts/acme/keys/new";
    let fields = "form_id=one&name=Website+2";
    // At the same time, as with a double click.
    let (first, second) =
        tokio::join!(world.post(path, OWNER, fields), world.post(path, OWNER, fields));
    assert_eq!(first.0, StatusCode::SEE_OTHER);
    assert_eq!(first, second);
    let page = world.page(&first.1, OWNER).await;
    let shown = token(&page).unwrap();
    assert_eq!(token(&world.page(&second.1, OWNER).await), Some(shown));
    assert_eq!(token(&world.page(&second.1, OWNER).await), None, "a reload shows it no more");
    // Later, after going back.
    assert_eq!(world.post(path, OWNER, fields).await, first);
    assert_eq!(token(&world.page(&first.1, OWNER).await), Some(shown));
    assert_eq!(world.made().await, ["Website 2"]);

    // Nobody else gets that answer, and an id is no more than that.
    let (_, of_other) = world.post(path, Who::Operator, fields).await;
    assert_ne!(of_other, first.1);
    assert_eq!(token(&world.page(&first.1, Who::Operator).await), None);
    // Who goes back and fills in something else means it.
    let (_, third) = world.post(path, OWNER, "form_id=one&name=Website+3").await;
    assert_ne!(third, first.1);
    // Without an id each is a form of its own.
    world.post(path, OWNER, "name=Plain").await;
    world.post(path, OWNER, "name=Plain").await;
    assert_eq!(world.made().await, ["Website 2", "Website 2", "Website 3", "Plain", "Plain"]);
}

#[tokio::test]
async fn form_that_was_not_taken_can_be_sent_again() {
    let world = World::new().await;
    let path = "/accounts/acme/keys/new";
    let (status, _) = world.post(path, OWNER, "form_id=one&name=").await;
    assert_ne!(status, StatusCode::SEE_OTHER);
    assert_eq!(world.made().await, Vec::<String>::new());
    let (status, _) = world.post(path, OWNER, "form_id=one&name=Website+2").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(world.made().await, ["Website 2"]);
}

/// What a form did may have ended what was needed to send it.
#[tokio::test]
async fn form_is_answered_again_after_it_ended_its_own_ground() {
    let world = World::new().await;
    let regenerate = format!("/accounts/acme/keys/{}/regenerate", world.key);
    for (path, who, fields) in [
        (regenerate.as_str(), OWNER, "form_id=1&grace_seconds=0"),
        ("/me/sign-out-everywhere", OWNER, "form_id=3"),
        ("/accounts/acme/delete", Who::Operator, "form_id=4&confirm=acme"),
        ("/sign-out", Who::Operator, "form_id=5"),
    ] {
        let before = world.changes().await;
        let first = world.post(path, who, fields).await;
        assert_eq!(first.0, StatusCode::SEE_OTHER, "{path}");
        let once = world.changes().await;
        assert!(once > before || path == "/sign-out", "{path}");
        assert_eq!(world.post(path, who, fields).await, first, "{path}");
        assert_eq!(world.changes().await, once, "{path}");
    }
    assert!(world.app.store.read(|db| accounts::get(db, "acme")).await.is_err());
}

/// Errors used to come in rounds: an expiry in the past only once rules and limits were right.
#[tokio::test]
async fn all_errors_of_a_form_are_said_at_once_and_beside_their_fields() {
    let world = World::new().await;
    let key = format!(
        "name=&expires_at=2001-01-01T00:00&networks=nowhere&environment={}\
                       &rule-0-resource=&rule-0-action=read&rule-2-resource=posts\
                       &limit-0-name=a+b&limit-0-amount=many&limit-0-buckets=0&limit-0-unit=1",
        "x".repeat(65)
    );
    let in_key = [
        "name",
        "environment",
        "expires_at",
        "networks",
        "rule-0-resource",
        "rule-2-actions",
        "limit-0-name",
        "limit-0-amount",
        "limit-0-buckets",
    ];
    let relations =
        "name=*&relation-0-field=a+b&relation-0-targets=&relation-1-field=c&relation-1-targets=";
    let in_relations = ["name", "relation-0-field", "relation-0-targets", "relation-1-targets"];
    let plan = "id=&name=&max_user_keys=some&limit-3-name=&limit-3-amount=x&limit-3-buckets=1&limit-3-unit=1";
    let in_plan = ["id", "name", "max_user_keys", "limit-3-name", "limit-3-amount"];
    let replace = format!("/accounts/acme/keys/{}/replace", world.key);
    let cases: [(&str, &str, &[&str]); 9] = [
        ("/accounts/acme/keys/new", &key, &in_key),
        ("/accounts/acme/new-content-type", relations, &in_relations),
        ("/new-plan", plan, &in_plan),
        (&replace, "name=", &["name"]),
        ("/accounts", "name=&id=a+b&profile=flotiq", &["name", "id"]),
        ("/accounts", "name=Other&id=other&profile=flotiq", &["id"]),
        ("/accounts/acme/members", "email=x&role=viewer", &["email"]),
        ("/operators", "email=x", &["email"]),
        ("/me", "name=", &["name"]),
    ];
    for (path, fields, in_error) in cases {
        let form = format!("{}&{fields}", csrf(Who::Operator));
        let (status, _, page) = world.send(&Method::POST, path, Who::Operator, &form, &[]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        for id in in_error {
            let (marked, said) =
                (format!("{id}-error\""), format!("<p class=\"error\" id=\"{id}-error\">"));
            assert!(
                page.contains(&format!("aria-invalid=\"true\" aria-describedby=\"{marked}"))
                    || page.contains(&format!("autofocus aria-describedby=\"{marked}")),
                "{path}: {id}"
            );
            assert_eq!(page.matches(&said).count(), 1, "{path}: {id}");
        }
        assert_eq!(page.matches("aria-invalid").count(), in_error.len(), "{path}");
        // The first field in error has the focus.
        assert_eq!(page.matches(" autofocus").count(), 1, "{path}");
        let (before, _) = page.split_once(" autofocus").unwrap();
        assert_eq!(before.matches("aria-invalid").count(), 1, "{path}");
    }
}

/// Saving after a session had ended used to lead to the start, and what was typed was lost.
#[tokio::test]
async fn form_of_a_session_that_ended_is_there_again_for_its_person() {
    let world = World::new().await;
    let path = "/accounts/acme/keys/new";
    let id = |page: &str| {
        let (_, rest) = page.split_once("name=\"form_id\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let page = world.page(path, OWNER).await;
    let fields = "name=Half+done&note=%3Cb%3E&rule-0-resource=posts&rule-0-action=read";
    let form = format!("{}&form_id={}&{fields}", csrf(OWNER), id(&page));
    let end = async |who: Who| {
        let hash = latchkey_protocol::KeyHash::of(secret(who).as_bytes());
        world.app.store.write(move |db| sessions::end(db, &hash)).await.unwrap();
    };
    let send = async |form: &str| {
        let (answer, _) = world.exchange(&Method::POST, path, OWNER, form, &[]).await;
        let header = |name| answer.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        (header(header::LOCATION).unwrap(), header(header::SET_COOKIE))
    };
    end(OWNER).await;
    let (to, cookie) = send(&form).await;
    assert_eq!(to, "/sign-in?next=%2Faccounts%2Facme%2Fkeys%2Fnew&kept=1");
    let cookie = cookie.unwrap();
    assert!(cookie.starts_with("latchkey_draft=") && cookie.contains("HttpOnly"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let shows = async |page: &str, who: Who| {
        let headers = [("cookie", cookie)];
        world.send(&Method::GET, page, who, "", &headers).await.2.contains("Half done")
    };

    sign_in(&world.app, OWNER).await;
    assert!(!shows(path, Who::Operator).await, "it is another person's");
    assert!(!shows("/accounts/acme/new-content-type", OWNER).await, "it is another page's");
    let headers = [("cookie", cookie)];
    let (_, _, page) = world.send(&Method::GET, path, OWNER, "", &headers).await;
    for text in ["Half done", "&#60;b&#62;", "value=\"posts\" selected", "You were signed out"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!shows(path, OWNER).await, "it is shown once");
    assert_eq!(world.made().await, Vec::<String>::new(), "nothing is carried out");
    let fields = format!("form_id={}&{fields}", id(&page));
    assert_eq!(world.post(path, OWNER, &fields).await.0, StatusCode::SEE_OTHER);
    assert_eq!(world.made().await, ["Half done"]);

    // Without an id nobody knows whose it is.
    end(OWNER).await;
    let (to, cookie) = send(&format!("{}&name=x", csrf(OWNER))).await;
    assert_eq!((to.as_str(), cookie), ("/sign-in?next=%2Faccounts%2Facme%2Fkeys%2Fnew", None));
}

/// After signing in again in another window the first window's form is of a session before.
#[tokio::test]
async fn form_of_a_session_before_is_there_again() {
    let world = World::new().await;
    let path = "/accounts/acme/new-content-type";
    let id = crate::panel::drafts::form_id("before", "person_owner");
    let form = format!("before&form_id={id}&name=pages");
    let (answer, _) = world.exchange(&Method::POST, path, OWNER, &form, &[]).await;
    assert_eq!(answer.headers[header::LOCATION], path);
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    let headers = [("cookie", cookie.split(';').next().unwrap())];
    let page = world.send(&Method::GET, path, OWNER, "", &headers).await.2;
    assert!(page.contains("value=\"pages\""), "{page}");
    // Not for another person.
    let (answer, _) = world.exchange(&Method::POST, path, Who::Operator, &form, &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn each_form_has_a_page_to_return_to() {
    let world = World::new().await;
    let is_of = |method: Method| move |route: &super::Route| route.method == method;
    let pages: Vec<String> = routes()
        .into_iter()
        .filter(is_of(Method::GET))
        .map(|route| world.path(&route, "acme"))
        .collect();
    for route in routes().into_iter().filter(is_of(Method::POST)) {
        let page = page_of(&world.path(&route, "acme"));
        assert!(pages.contains(&page), "{}: {page}", route.path);
    }
}

/// Signing out elsewhere, withdrawing a link and removing a replaced key used to take one click, and others
/// did not say what they hit.
#[tokio::test]
async fn what_ends_something_for_good_asks_and_names_it() {
    let world = World::new().await;
    let replaced = world.key.clone();
    let body = format!("name=Website+2&form_id=1&{}", csrf(OWNER));
    let replace = format!("/accounts/acme/keys/{replaced}/replace");
    world.post(&replace, OWNER, &body).await;
    let regenerate = format!("/accounts/acme/keys/{replaced}/regenerate");
    world.post(&regenerate, OWNER, "grace_seconds=86400").await;
    let invite = world.post("/operators", Who::Operator, "email=new@example.com").await;
    assert_eq!(invite.0, StatusCode::OK);
    let named = [
        ("regenerate", "Website"),
        ("end-grace", "Website"),
        ("revoke", "Website"),
        ("delete", "acme"),
        ("delete", "posts"),
        ("delete", "growth"),
        ("remove", "viewer@example.com"),
        ("withdraw", "new@example.com"),
        ("sign-out-everywhere", "operator@example.com"),
    ];
    let mut seen = Vec::new();
    for route in routes().into_iter().filter(|route| route.method == Method::GET) {
        let page = world.page(&world.path(&route, "acme"), Who::Operator).await;
        let mut before = String::new();
        for part in page.split("<form method=\"post\"") {
            let form = part.split("</form>").next().unwrap();
            let action = form.split('"').nth(1).unwrap_or_default();
            let ending = action.rsplit('/').next().unwrap();
            if let Some((ending, _)) = named.iter().find(|(name, _)| *name == ending) {
                let is_in_details =
                    before.matches("<details").count() > before.matches("</details").count();
                assert!(is_in_details, "{}: {action} takes one click", route.path);
                let (_, question) = form.split_once("<strong>").unwrap();
                let question = question.split("</strong>").next().unwrap();
                assert!(question.ends_with('?'), "{}: {question}", route.path);
                seen.push((*ending, question.to_owned()));
            }
            before.push_str(part);
        }
    }
    for (ending, name) in named {
        let is_asked =
            seen.iter().any(|(other, question)| *other == ending && question.contains(name));
        assert!(is_asked, "{ending} of {name}: {seen:?}");
    }
}

/// A link is shown in the answer to its form; where the form is sent again, its page shows the same one.
#[tokio::test]
async fn invitation_that_is_sent_again_has_the_same_link() {
    let world = World::new().await;
    let link = |page: &str| {
        let (_, rest) = page.split_once("id=\"link\" class=\"secret\">")?;
        rest.split('<').next().map(str::to_owned)
    };
    for (path, fields) in [
        ("/accounts/acme/members", "form_id=1&email=x@example.com&role=viewer"),
        ("/operators", "form_id=2&email=y@example.com"),
        ("/operators/password-link", "form_id=3&person_email=owner@example.com"),
    ] {
        let who = Who::Operator;
        let form = format!("{}&{fields}", csrf(who));
        let (_, _, page) = world.send(&Method::POST, path, who, &form, &[]).await;
        let first = link(&page).unwrap();
        assert!(first.contains("/links/"), "{first}");
        let (status, location) = world.post(path, who, fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{path}");
        assert_eq!(link(&world.page(&location, who).await), Some(first), "{path}");
        assert_eq!(link(&world.page(&location, who).await), None, "{path}: a reload");
    }
}

/// Searches used to know capitals of ASCII only.
#[tokio::test]
async fn search_finds_capitals_of_every_script() {
    let world = World::new().await;
    world.post("/accounts/acme/keys/new", OWNER, "name=%C3%84rger").await;
    let who = Who::Operator;
    world.post("/accounts", who, "name=%C5%BB%C3%B3%C5%82w&id=turtle&profile=flotiq").await;
    for (page, found) in [
        ("/accounts/acme/keys?search=%C3%A4RGER", "\u{c4}rger"),
        ("/accounts?search=%C5%BC%C3%93%C5%81W", "turtle"),
        ("/audit?actor=OPERATOR", "turtle"),
    ] {
        assert!(world.page(page, who).await.contains(found), "{page}");
    }
}

/// A second click on a link's form used to find the link used up, and nobody signed in.
#[tokio::test]
async fn form_of_a_link_that_is_sent_again_signs_the_same_person_in() {
    let world = World::new().await;
    let path = "/links/secret_operator";
    let form = "&form_id=1&email=ada@example.com&name=Ada&new_password=correct+horse+battery";
    let send = async || {
        let (answer, _) = world.exchange(&Method::POST, path, Who::Nobody, form, &[]).await;
        let location = answer.headers[header::LOCATION].to_str().unwrap().to_owned();
        let cookies = answer.headers.get_all(header::SET_COOKIE).iter();
        let cookies: BTreeSet<String> =
            cookies.map(|cookie| cookie.to_str().unwrap().to_owned()).collect();
        (answer.status, location, cookies)
    };
    let (first, second) = tokio::join!(send(), send());
    assert_eq!(first.0, StatusCode::SEE_OTHER);
    assert!(first.2.iter().any(|cookie| cookie.starts_with("latchkey_session=")));
    assert_eq!(first, second);
    assert_eq!(send().await, first);
    // With another password it is another form, and the link is used up.
    let form = form.replace("battery", "staple");
    let (answer, _) = world.exchange(&Method::POST, path, Who::Nobody, &form, &[]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
}
