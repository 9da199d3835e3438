//! Every route of the panel for every kind of visitor, from the table of routes.

mod forms;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::response::Parts;
use axum::http::{Method, Request, StatusCode, header};
use latchkey_protocol::KeyHash;
use tokio::sync::watch;
use tower::ServiceExt;

use super::keys::Facts;
use super::{Panel, Route, routes};
use crate::api::keys::{CreateKey, issue};
use crate::app::App;
use crate::cli::TokenAccess;
use crate::credentials::Credential;
use crate::edge::leases::{Clerk, Desk};
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::session::Needs;
use crate::store::links::{self, Purpose};
use crate::store::people::{self, NewPerson};
use crate::store::{Change, NewAccount, Origin, Role, Store, accounts, plans, sessions};
use crate::time::Time;
use crate::wrong_tokens::WrongTokens;

/// Someone who opens a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Not signed in.
    Nobody,
    /// Owner of another account.
    Stranger,
    Member(Role),
    Operator,
}

const EVERYONE: [Who; 7] = [
    Who::Nobody,
    Who::Stranger,
    Who::Member(Role::Viewer),
    Who::Member(Role::Developer),
    Who::Member(Role::Admin),
    Who::Member(Role::Owner),
    Who::Operator,
];

/// How a route meets a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meeting {
    Forbidden,
    Missing,
    Open,
    SignIn,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Stranger => "stranger",
            Self::Member(role) => role.as_str(),
            Self::Operator => "operator",
        }
    }

    /// Says anew, and in another way than the guard, whom a route is open to.
    fn meets(self, needs: Needs, names_account: bool) -> Meeting {
        match (needs, self) {
            (Needs::Nothing, _) => Meeting::Open,
            (_, Self::Nobody) => Meeting::SignIn,
            (_, Self::Operator) | (Needs::SignedIn, _) => Meeting::Open,
            (_, Self::Stranger) if names_account => Meeting::Missing,
            (Needs::Operator, _) | (_, Self::Stranger) => Meeting::Forbidden,
            (Needs::Member(Role::Viewer), Self::Member(_)) => Meeting::Open,
            (Needs::Member(Role::Developer), Self::Member(role)) => {
                if role == Role::Viewer {
                    Meeting::Forbidden
                } else {
                    Meeting::Open
                }
            }
            (Needs::Member(Role::Admin), Self::Member(role)) => match role {
                Role::Admin | Role::Owner => Meeting::Open,
                Role::Developer | Role::Viewer => Meeting::Forbidden,
            },
            (Needs::Member(Role::Owner), Self::Member(role)) => {
                if role == Role::Owner {
                    Meeting::Open
                } else {
                    Meeting::Forbidden
                }
            }
        }
    }
}

struct World {
    app: App,
    router: Router,
    key: String,
    _folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let profiles = Profiles::load(None).unwrap();
        let (metrics, recalls) = (Arc::new(Metrics::new()), Arc::default());
        let desk = Desk::open(Clerk {
            store: store.clone(),
            default_plans: profiles.default_plans(),
            metrics: Arc::clone(&metrics),
            recalls: Arc::clone(&recalls),
        });
        let (stop, stopping) = watch::channel(false);
        let app = App {
            store,
            profiles: Arc::new(profiles),
            proxies: Arc::default(),
            snapshots: Arc::default(),
            deltas: Arc::default(),
            metrics,
            desk,
            recalls,
            operator: Credential::of("operator"),
            edge: Credential::of("edge"),
            trusted_proxies: Arc::from([]),
            has_warned_of_proxy: Arc::default(),
            wrong_tokens: Arc::new(WrongTokens::new()),
            token_access: TokenAccess::Api,
            sealing: None,
            panel: Arc::new(Panel::new("http://localhost").unwrap()),
            stopping,
        };
        fill(&app).await;
        let body = CreateKey {
            name: "Website".to_owned(),
            rules: Some(Vec::new()),
            enforce: true,
            expires_at: None,
            environment: None,
            allowed_networks: None,
            limits: None,
            note: None,
            replaces: None,
        };
        let (key, _) = issue(&app, "acme", origin(), body).await.unwrap();
        let router = crate::router::router(app.clone());
        Self { app, router, key: key.id, _folder: folder, _stop: stop }
    }

    fn path(&self, route: &Route, account: &str) -> String {
        let link = if route.path.starts_with("/operators") { "link_operator" } else { "link_acme" };
        route
            .path
            .replace("{account}", account)
            .replace("{key}", &self.key)
            .replace("{name}", "posts")
            .replace("{person}", "person_viewer")
            .replace("{link}", link)
            .replace("{plan}", "growth")
            .replace("{secret}", "secret_operator")
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        who: Who,
        csrf: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String, String) {
        let (answer, body) = self.exchange(method, path, who, csrf, headers).await;
        let location = answer.headers.get(header::LOCATION);
        let location = location.map(|value| value.to_str().unwrap().to_owned());
        (answer.status, location.unwrap_or_default(), body)
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        who: Who,
        csrf: &str,
        headers: &[(&str, &str)],
    ) -> (Parts, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::COOKIE, format!("latchkey_session={}", secret(who)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if *method == Method::POST { format!("csrf={csrf}") } else { String::new() };
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts, String::from_utf8_lossy(&body).into_owned())
    }

    /// Returns how many entries the audit log has: whatever was changed is there.
    async fn changes(&self) -> usize {
        let all = |db: &rusqlite::Connection| {
            crate::store::audit::search(db, &Default::default(), None, usize::MAX)
        };
        self.app.store.read(all).await.unwrap().len()
    }
}

/// Makes two accounts, people with each role, a content type, and links.
async fn fill(app: &App) {
    let profile = Arc::clone(app.profile("flotiq").unwrap());
    let (name, defaults) = (profile.name.clone(), profile.plans.clone());
    app.store.change(origin(), move |c| plans::install(c, &name, &defaults)).await.unwrap();
    for id in ["acme", "other"] {
        let new = NewAccount {
            id: id.to_owned(),
            name: id.to_owned(),
            plan: "free".to_owned(),
            profile: "flotiq".to_owned(),
            keys: Vec::new(),
        };
        app.store.change(origin(), move |change| accounts::create(change, &new)).await.unwrap();
    }
    for who in EVERYONE.into_iter().filter(|who| *who != Who::Nobody) {
        app.store
            .change(origin(), move |change| {
                let new = NewPerson {
                    id: format!("person_{}", who.name()),
                    email: format!("{}@example.com", who.name()),
                    name: who.name().to_owned(),
                    password: String::new(),
                };
                let person = people::create(change, &new)?;
                match who {
                    Who::Member(role) => people::set_role(change, "acme", &person.id, role)?,
                    Who::Stranger => people::set_role(change, "other", &person.id, Role::Owner)?,
                    Who::Operator => people::set_operator(change, &person.id, true)?,
                    Who::Nobody => {}
                }
                Ok(())
            })
            .await
            .unwrap();
        sign_in(app, who).await;
    }
    app.store
        .change(origin(), |change| {
            let posts = serde_json::from_str(r#"{"name":"posts"}"#)?;
            crate::store::resources::put(change, "acme", &posts)?;
            let member = Purpose::Member {
                account: "acme".to_owned(),
                role: Role::Viewer,
                email: "new@example.com".to_owned(),
            };
            let operator = Purpose::Operator { email: None };
            for (name, purpose) in [("acme", member), ("operator", operator)] {
                let hash = KeyHash::of(format!("secret_{name}").as_bytes());
                links::create(change, &format!("link_{name}"), &hash, &purpose, i64::MAX)?;
            }
            Ok(())
        })
        .await
        .unwrap();
}

/// Starts a session, unless nobody is to be signed in.
async fn sign_in(app: &App, who: Who) {
    if who == Who::Nobody {
        return;
    }
    let hash = KeyHash::of(secret(who).as_bytes());
    let id = format!("person_{}", who.name());
    let (person, _) = app.store.read(move |db| people::get(db, &id)).await.unwrap();
    let new = sessions::NewSession {
        hash,
        agent: String::new(),
        checked: None,
        before: None,
        places: vec![],
    };
    app.store.change(origin(), move |change| sessions::start(change, &person, &new)).await.unwrap();
}

fn origin() -> Origin {
    Origin::of("test", "")
}

fn secret(who: Who) -> String {
    format!("secret of {}", who.name()).replace(' ', "_")
}

fn csrf(who: Who) -> String {
    crate::session::csrf_of(&secret(who))
}

/// What ends or removes something comes last, so that all others find it.
fn in_order() -> Vec<Route> {
    let mut routes = routes();
    routes.sort_by_key(|route| {
        let endings = ["revoke", "delete", "remove", "withdraw", "sign-out-everywhere", "sign-out"];
        let ends = |ending: &&str| route.path.rsplit('/').next() == Some(*ending);
        endings.iter().position(ends).map_or(0, |position| position + 1)
    });
    routes
}

#[tokio::test]
async fn each_route_is_open_to_whom_the_table_says() {
    let mut meetings = 0;
    for who in EVERYONE {
        let world = World::new().await;
        for route in in_order() {
            let path = world.path(&route, "acme");
            if route.path == "/sign-out" {
                // All sessions ended with the route before.
                sign_in(&world.app, who).await;
            }
            let before = world.changes().await;
            let (status, location, body) =
                world.send(&route.method, &path, who, &csrf(who), &[]).await;
            let expected = who.meets(route.needs, route.path.contains("{account}"));
            let met = match status {
                StatusCode::FORBIDDEN => Meeting::Forbidden,
                StatusCode::NOT_FOUND => Meeting::Missing,
                StatusCode::SEE_OTHER if location.starts_with("/sign-in?next=") => Meeting::SignIn,
                _ => Meeting::Open,
            };
            assert_eq!(met, expected, "{} {path} for {who:?}: {status} {body}", route.method);
            assert!(!status.is_server_error(), "{} {path}: {status}", route.method);
            if met != Meeting::Open {
                assert_eq!(world.changes().await, before, "{} {path} for {who:?}", route.method);
            }
            meetings += 1;
        }
    }
    assert_eq!(meetings, routes().len() * EVERYONE.len());
}

#[tokio::test]
async fn nothing_is_done_for_another_site() {
    let world = World::new().await;
    let who = Who::Operator;
    let before = world.changes().await;
    for route in routes().into_iter().filter(|route| route.method == Method::POST) {
        let path = world.path(&route, "acme");
        let other = csrf(Who::Member(Role::Owner));
        let attempts: [(&str, &[(&str, &str)]); 5] = [
            ("", &[]),
            (&other, &[]),
            (&csrf(who), &[("sec-fetch-site", "cross-site")]),
            (&csrf(who), &[("sec-fetch-site", "same-site")]),
            (&csrf(who), &[("origin", "https://evil.example")]),
        ];
        // Where nobody need be signed in, where the request comes from has to be enough.
        let known = if route.needs == Needs::Nothing { 2 } else { 0 };
        for (csrf, headers) in attempts.into_iter().skip(known) {
            let (status, _, _) = world.send(&Method::POST, &path, who, csrf, headers).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} with {csrf:?} {headers:?}");
        }
    }
    assert_eq!(world.changes().await, before);
}

/// What belongs to one account is not found through another, whoever owns that one.
#[tokio::test]
async fn nothing_of_an_account_is_reached_through_another() {
    let world = World::new().await;
    let before = world.changes().await;
    let of_others = |route: &Route| {
        ["{key}", "{person}", "{link}"].iter().any(|part| route.path.contains(part))
            && route.path.contains("{account}")
    };
    for route in routes().into_iter().filter(of_others) {
        let path = world.path(&route, "other");
        let who = Who::Stranger;
        let (status, _, body) = world.send(&route.method, &path, who, &csrf(who), &[]).await;
        let is_refused = match status {
            StatusCode::NOT_FOUND => true,
            // The form is looked at first.
            StatusCode::BAD_REQUEST => {
                route.path.ends_with("regenerate") || route.path.ends_with("{person}")
            }
            // It would be withheld in any case: nothing is kept.
            StatusCode::CONFLICT => route.path.ends_with("reveal"),
            _ => false,
        };
        assert!(is_refused, "{} {path}: {status} {body}", route.method);
        assert!(!body.contains("Website"), "{path}");
    }
    assert_eq!(world.changes().await, before);
}

/// Tokens are to be replaced every 90 days.
#[tokio::test]
async fn token_that_is_90_days_old_is_marked() {
    let world = World::new().await;
    let key = world.key.clone();
    let is_old = async |days: i64| {
        let key = key.clone();
        let at = Time::from_ms(Time::now().as_ms() + days * 86_400_000);
        let card = world.app.store.read(move |db| {
            let account = accounts::get(db, "acme")?;
            let key = crate::store::keys::get(db, "acme", &key, at.as_ms())?;
            Ok(Facts::of(db, &account, at)?.card(key))
        });
        card.await.unwrap().is_old()
    };
    assert!(!is_old(89).await);
    assert!(is_old(91).await);
}

/// Who is no longer a member, or no operator any more, has left no way back.
#[tokio::test]
async fn links_end_with_what_their_maker_was() {
    let world = World::new().await;
    let make = async |purpose: Purpose, id: &'static str, maker: &str| {
        let origin = Origin::of(maker, "");
        let hash = KeyHash::of(id.as_bytes());
        let made =
            move |change: &mut Change<'_>| links::create(change, id, &hash, &purpose, i64::MAX);
        world.app.store.change(origin, made).await.unwrap();
    };
    let exists = async |id: &'static str| {
        let find = move |db: &rusqlite::Connection| links::find(db, &KeyHash::of(id.as_bytes()), 0);
        world.app.store.read(find).await.unwrap().is_some()
    };
    let member = |email: &str| Purpose::Member {
        account: "acme".to_owned(),
        role: Role::Admin,
        email: email.to_owned(),
    };
    make(member("admin@example.com"), "for_admin", "owner@example.com").await;
    make(member("x@example.com"), "by_admin", "admin@example.com").await;
    make(member("y@example.com"), "by_owner", "owner@example.com").await;
    let password = Purpose::Password { person: "person_owner".to_owned() };
    make(password, "by_operator", "operator@example.com").await;
    world
        .app
        .store
        .change(origin(), |change| {
            people::remove_member(change, "acme", "person_admin")?;
            people::set_operator(change, "person_viewer", true)?;
            people::set_operator(change, "person_operator", false)
        })
        .await
        .unwrap();
    for id in ["for_admin", "by_admin", "by_operator"] {
        assert!(!exists(id).await, "{id}");
    }
    assert!(exists("by_owner").await);

    // One that gives nothing new is used up all the same.
    let take = || {
        let hash = KeyHash::of(b"secret_operator");
        world.app.store.change(origin(), move |c| links::take(c, &hash, "person_viewer"))
    };
    take().await.unwrap();
    assert!(take().await.is_err());
}

/// Admins manage members, but neither make owners nor touch them.
#[tokio::test]
async fn only_owners_make_and_change_owners() {
    let world = World::new().await;
    let post = async |path: &str, who: Who, fields: &str| {
        let form = format!("{}&{fields}", csrf(who));
        world.send(&Method::POST, path, who, &form, &[]).await.0
    };
    let (admin, owner) = (Who::Member(Role::Admin), Who::Member(Role::Owner));
    let refused = [
        ("/accounts/acme/members", "email=x@example.com&role=owner"),
        ("/accounts/acme/members/person_viewer", "role=owner"),
        ("/accounts/acme/members/person_admin", "role=owner"),
        ("/accounts/acme/members/person_owner", "role=viewer"),
        ("/accounts/acme/members/person_owner/remove", ""),
    ];
    for (path, fields) in refused {
        assert_eq!(post(path, admin, fields).await, StatusCode::FORBIDDEN, "{path} {fields}");
    }
    let path = "/accounts/acme/members/person_owner";
    assert_eq!(
        post(path, owner, "role=viewer").await,
        StatusCode::CONFLICT,
        "the last owner stays"
    );
    let path = "/accounts/acme/members/person_admin";
    assert_eq!(post(path, owner, "role=owner").await, StatusCode::SEE_OTHER);
    let path = "/accounts/acme/members/person_owner/remove";
    assert_eq!(post(path, admin, "").await, StatusCode::SEE_OTHER, "now there are two owners");
}
