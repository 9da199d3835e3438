//! Where a person begins.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};

use super::failure::Failure;
use super::form::{Asked, encode};
use super::frame::{self, Frame};
use crate::app::App;
use crate::session::Visitor;
use crate::store::{Account, Role, people};

#[derive(Template)]
#[template(path = "panel/home.html")]
struct HomePage {
    frame: Frame,
    memberships: Vec<(Account, Role)>,
}

/// Goes on to the only account, or lists those that the person is a member of.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let done = match asked.text("done") {
        "" => String::new(),
        done => format!("?done={}", encode(done)),
    };
    if visitor.person.is_operator {
        return Ok(Redirect::to(&format!("/accounts{done}")).into_response());
    }
    let person = visitor.person.id.clone();
    let memberships = app.store.read(move |db| people::memberships(db, &person)).await?;
    if let [(account, _)] = memberships.as_slice() {
        return Ok(Redirect::to(&format!("/accounts/{}/keys{done}", account.id)).into_response());
    }
    let frame = Frame::new(visitor, "home", "Your accounts").after(&asked);
    Ok(frame::html(&HomePage { frame, memberships }))
}

/// Goes on to an account's keys.
pub(super) async fn account(visitor: Visitor) -> Result<Response, Failure> {
    Ok(Redirect::to(&format!("/accounts/{}/keys", visitor.account()?.id)).into_response())
}
