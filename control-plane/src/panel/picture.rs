//! Content types and their relations as a picture: where nodes and arrows stand.

use std::collections::BTreeSet;
use std::f64::consts::TAU;

use latchkey_protocol::{Relation, Resource};

/// A picture of content types.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) nodes: Vec<Node>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// A content type.
#[derive(Debug)]
pub(super) struct Node {
    /// Cut off if it is long.
    pub(super) name: String,
    /// All of it.
    pub(super) title: String,
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    /// Whether it is registered; else a relation names it only.
    pub(super) is_known: bool,
}

/// A relation, or several between the same two.
#[derive(Debug)]
pub(super) struct Arrow {
    /// The curve, as SVG has it.
    pub(super) path: String,
    pub(super) title: String,
}

impl Picture {
    /// Returns the picture of content types; none if there are no relations, or more types than can be
    /// told apart.
    pub(super) fn of(resources: &[Resource]) -> Option<Self> {
        let mut names: BTreeSet<&str> = resources.iter().map(|r| r.name.as_str()).collect();
        let targets = |resource: &Resource| -> Vec<(String, String)> {
            let each = resource.relations.iter().flat_map(|(field, relation)| match relation {
                Relation::Any(any) => vec![(any.clone(), field.clone())],
                Relation::Some(names) => {
                    names.iter().map(|name| (name.clone(), field.clone())).collect()
                }
            });
            each.collect()
        };
        let relations: Vec<(&str, String, String)> = resources
            .iter()
            .flat_map(|from| {
                targets(from).into_iter().map(|(to, field)| (from.name.as_str(), to, field))
            })
            .collect();
        names.extend(relations.iter().map(|(_, to, _)| to.as_str()));
        if relations.is_empty() || names.len() > MAX_NODES {
            return None;
        }
        let names: Vec<&str> = names.into_iter().collect();
        let nodes: Vec<Node> = names
            .iter()
            .enumerate()
            .map(|(index, name)| place(index, names.len(), name, resources))
            .collect();
        let mut pairs: Vec<(&str, &str, Vec<&str>)> = Vec::new();
        for (from, to, field) in &relations {
            match pairs.iter_mut().find(|(f, t, _)| f == from && t == to) {
                Some((_, _, fields)) => fields.push(field),
                None => pairs.push((from, to, vec![field])),
            }
        }
        let find = |name: &str| nodes.iter().find(|node| node.title == name || is_any(node, name));
        let arrows = pairs.iter().filter_map(|(from, to, fields)| {
            let to_name = if *to == "*" { "any type" } else { to };
            Some(Arrow {
                path: curve(find(from)?, find(to)?),
                title: format!("{from}.{} → {to_name}", fields.join(", ")),
            })
        });
        let arrows = arrows.collect();
        Some(Self { nodes, arrows, width: WIDTH, height: HEIGHT })
    }
}

fn is_any(node: &Node, name: &str) -> bool {
    name == "*" && node.title == ANY
}

fn place(index: usize, count: usize, name: &str, resources: &[Resource]) -> Node {
    #[expect(clippy::cast_precision_loss, reason = "there are few nodes")]
    let angle = TAU * (index as f64) / (count as f64) - TAU / 4.0;
    let shown = if name == "*" { ANY } else { name };
    let cut: String = match shown.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.to_owned(),
    };
    let chars = i32::try_from(cut.chars().count()).unwrap_or_default();
    Node {
        name: cut,
        title: shown.to_owned(),
        x: WIDTH / 2 + round(angle.cos() * f64::from(WIDTH / 2 - 130)),
        y: HEIGHT / 2 + round(angle.sin() * f64::from(HEIGHT / 2 - 40)),
        width: 30 + chars * 11,
        is_known: resources.iter().any(|resource| resource.name == name),
    }
}

/// Returns a curve from the rim of one node to that of another, bent to one side so that two arrows
/// that go both ways do not lie on each other.
fn curve(from: &Node, to: &Node) -> String {
    if from.title == to.title {
        let (x, y) = (from.x, from.y - NODE_HEIGHT / 2);
        return format!(
            "M {} {y} C {} {}, {} {}, {} {y}",
            x - 18,
            x - 50,
            y - 52,
            x + 50,
            y - 52,
            x + 18
        );
    }
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let middle = ((from.x + to.x) / 2 - dy / 8, (from.y + to.y) / 2 + dx / 8);
    let (start, end) = (rim(from, middle), rim(to, middle));
    format!("M {} {} Q {} {} {} {}", start.0, start.1, middle.0, middle.1, end.0, end.1)
}

/// Returns where a line from a node's middle to a point leaves the node.
fn rim(node: &Node, (x, y): (i32, i32)) -> (i32, i32) {
    let (dx, dy) = (f64::from(x - node.x), f64::from(y - node.y));
    let (half_width, half_height) =
        (f64::from(node.width) / 2.0 + 4.0, f64::from(NODE_HEIGHT) / 2.0 + 4.0);
    let scale = (half_width / dx.abs().max(0.1)).min(half_height / dy.abs().max(0.1));
    (node.x + round(dx * scale), node.y + round(dy * scale))
}

#[expect(clippy::cast_possible_truncation, reason = "coordinates are small")]
fn round(value: f64) -> i32 {
    value.round() as i32
}

/// Name of the node that stands for every type.
const ANY: &str = "any type";

/// Longer names are cut off.
const MAX_CHARS: usize = 18;

/// More nodes than this cannot be told apart.
const MAX_NODES: usize = 24;

/// Size of the picture.
const WIDTH: i32 = 900;
const HEIGHT: i32 = 520;

/// Height of a node.
pub(super) const NODE_HEIGHT: i32 = 34;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_between_the_same_types_are_one_arrow() {
        let resource: Resource = serde_json::from_str(
            r#"{"name":"posts","relations":{"author":["people"],"editor":["people"],"any":"*","next":["posts"]}}"#,
        )
        .unwrap();
        let picture = Picture::of(std::slice::from_ref(&resource)).unwrap();
        let nodes: Vec<_> = picture.nodes.iter().map(|n| (n.name.as_str(), n.is_known)).collect();
        assert_eq!(nodes, [("any type", false), ("people", false), ("posts", true)]);
        let arrows: Vec<_> = picture.arrows.iter().map(|arrow| arrow.title.as_str()).collect();
        assert_eq!(
            arrows,
            ["posts.any → any type", "posts.author, editor → people", "posts.next → posts"]
        );
        let lonely = Resource { name: "tags".to_owned(), relations: Default::default() };
        assert!(Picture::of(&[lonely]).is_none());
    }
}
