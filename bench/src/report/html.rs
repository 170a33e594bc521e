//! The few pieces of HTML the report is made of. Text given to them is escaped here, once.

pub(super) use crate::charts::escape;

use crate::charts::Hint;

/// A paragraph.
pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A chart inside the page. It may scroll sideways on its own, so that the page need not; a keyboard can scroll it too.
pub(super) fn figure(svg: &str) -> String {
    // HTML knows what an <svg> is; the namespace is for files that stand alone.
    let svg = svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    format!("<figure><div class=\"wide\" tabindex=\"0\">\n{svg}</div></figure>\n")
}

/// A chart that tells more about the part a reader points at, where a script may.
pub(super) fn readable(svg: &str, hints: &[Hint]) -> String {
    // A list of numbers and strings is always JSON.
    let json = serde_json::to_string(hints).unwrap_or_default();
    match hints.is_empty() {
        true => figure(svg),
        false => figure(svg).replacen("<figure>", &format!("<figure data-hints=\"{}\">", escape(&json)), 1),
    }
}

/// One of two drawings of a chart, of which the page shows the first and a script can show the other.
pub(super) fn switchable(svg: &str, class: &str, values: Option<&str>, shown: bool) -> String {
    let values = values.map_or_else(String::new, |values| format!(" data-plot=\"{}\"", escape(values)));
    let hidden = if shown { "" } else { " hidden" };
    figure(svg).replacen("<figure>", &format!("<figure class=\"{class}\"{values}{hidden}>"), 1)
}

/// A table of figures: the first column names, the others are flush right up to `figures` of them, then text again.
pub(super) fn table(caption: &str, header: &[&str], figures: usize, rows: &[Vec<String>]) -> String {
    let class = |column: usize| {
        if (1..=figures).contains(&column) {
            " class=\"figure\""
        } else {
            ""
        }
    };
    let kind = if figures > 0 { "figures" } else { "words" };
    let mut table = format!(
        "<p class=\"second\">{}</p>\n<div class=\"wide {kind}\" tabindex=\"0\"><table>\n<thead><tr>",
        escape(caption)
    );
    for (column, title) in header.iter().enumerate() {
        table.push_str(&format!("<th scope=\"col\"{}>{}</th>", class(column), escape(title)));
    }
    table.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        table.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            table.push_str(&format!("<td{}>{}</td>", class(column), escape(cell)));
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody></table></div>\n");
    table
}

/// A table of names and what they stand for.
pub(super) fn facts(facts: &[(String, String)]) -> String {
    let mut table = String::from("<table class=\"facts\"><tbody>\n");
    for (name, value) in facts {
        table.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
            escape(name),
            escape(value)
        ));
    }
    table.push_str("</tbody></table>\n");
    table
}

/// Terms and their explanations.
pub(super) fn terms(terms: &[(&str, String)]) -> String {
    let mut list = String::from("<dl>\n");
    for (term, text) in terms {
        list.push_str(&format!("<dt>{}</dt>\n<dd>{}</dd>\n", escape(term), escape(text)));
    }
    list.push_str("</dl>\n");
    list
}
