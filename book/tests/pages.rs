//! The pages hold together: parts, included code, links, words, exercises.

// All of this file is test, its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use book::pages::{self, Page};
use book::{blocks, folder, preprocess, prose};

fn all() -> Vec<Page> {
    pages::all(&folder().join("src")).unwrap()
}

/// Fails with all complaints at once.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_chapter_has_its_parts() {
    let lacking = all().into_iter().filter(Page::is_chapter);
    none(
        lacking
            .filter_map(|page| {
                Some(format!(
                    "{}: no `## {}` where it belongs",
                    page.name,
                    page.missing_section()?
                ))
            })
            .collect(),
    );
}

#[test]
fn every_part_holds_what_it_is_there_for() {
    let lacking = |page: Page| {
        let missing = page.lacking().into_iter();
        missing
            .map(|what| format!("{}: lacks {what}", page.name))
            .collect::<Vec<_>>()
    };
    none(all().into_iter().filter(Page::is_chapter).flat_map(lacking).collect());
}

#[test]
fn figures_in_prose_come_from_somewhere() {
    let list = fs::read_to_string(folder().join("figures.txt")).unwrap();
    let list = prose::sourced(&list).unwrap_or_else(|error| panic!("figures.txt, {error}"));
    none(prose::unsourced(&all(), &list));
}

#[test]
fn every_page_can_be_shown() {
    let failed = |page: Page| preprocess::page(&page.name, &page.text).err();
    none(
        all()
            .into_iter()
            .filter_map(failed)
            .map(|error| error.to_string())
            .collect(),
    );
}

#[test]
fn included_code_exists() {
    let mut complaints = Vec::new();
    for page in all() {
        for (file, anchor) in page.includes() {
            let place = format!("{}: {}:{anchor}", page.name, file.display());
            match fs::read_to_string(folder().join("src").join(&file)) {
                Err(error) => complaints.push(format!("{place}: {error}")),
                Ok(_) if anchor.is_empty() => complaints.push(format!("{place}: include by anchor, not whole files")),
                Ok(code) => match pages::anchored(&code, &anchor) {
                    Some(lines) if lines.iter().any(|line| !line.trim().is_empty()) => {}
                    _ => complaints.push(format!("{place}: no such anchor, or nothing in it")),
                },
            }
        }
    }
    none(complaints);
}

#[test]
fn links_into_a_page_lead_to_a_place_there() {
    let pages = all();
    let anchors = pages::anchors(&pages);
    let missing = |page: &Page| {
        let links = page.links().into_iter();
        links
            .filter_map(|(_, target)| pages::missing_anchor(page, &anchors, &target))
            .map(|what| format!("{}: {what}", page.name))
            .collect::<Vec<_>>()
    };
    none(pages.iter().flat_map(missing).collect());
}

#[test]
fn words_have_one_spelling() {
    let pages = all();
    let Some(glossary) = pages.iter().find(|page| page.name == "a-glossary.md") else {
        return;
    };
    let mut terms = pages::terms(glossary);
    none(
        prose::WORDS
            .iter()
            .filter(|word| !terms.iter().any(|term| term == *word))
            .map(|word| format!("the glossary does not explain `{word}`"))
            .collect(),
    );
    terms.extend(prose::FIELD.map(str::to_owned));
    let wrong = |page: &Page| {
        let found = pages::misspelt(page, &terms).into_iter();
        found
            .map(|(line, written, term)| format!("{}:{line}: `{written}`: this book writes `{term}`", page.name))
            .collect::<Vec<_>>()
    };
    none(pages.iter().flat_map(wrong).collect());
}

/// A term that no page leads to is one no reader looks up.
#[test]
fn every_term_is_linked_from_a_page() {
    let pages = all();
    let glossary = pages.iter().find(|page| page.name == "a-glossary.md").unwrap();
    let linked: BTreeSet<String> = pages
        .iter()
        .filter(|page| page.name != glossary.name)
        .flat_map(|page| page.links())
        .filter_map(|(_, target)| target.strip_prefix("a-glossary.md#").map(str::to_owned))
        .collect();
    none(
        pages::terms(glossary)
            .into_iter()
            .filter(|term| !linked.contains(&pages::title_id(term)))
            .map(|term| format!("no page links to the glossary's `{term}`"))
            .collect(),
    );
}

#[test]
fn every_figure_is_shown() {
    let shown: BTreeSet<String> = all()
        .iter()
        .flat_map(|page| {
            page.links()
                .into_iter()
                .filter_map(|(_, target)| target.strip_prefix("figures/").map(str::to_owned))
        })
        .collect();
    let there = fs::read_dir(folder().join("src/figures")).into_iter().flatten();
    let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    none(
        there
            .filter(|name| !shown.contains(name))
            .map(|name| format!("figures/{name} is in no chapter"))
            .collect(),
    );
}

#[test]
fn every_command_block_follows_the_rules() {
    none(
        all()
            .iter()
            .filter_map(|page| Some(format!("{}: {}", page.name, blocks::parse(&page.text).err()?)))
            .collect(),
    );
}

/// The test of the blocks sets variables that keep it from touching the machine's own containers; a reader has none of them.
#[test]
fn commands_need_no_variable_that_only_the_test_sets() {
    let uses = |page: &Page| {
        let steps = blocks::parse(&page.text)
            .unwrap_or_default()
            .into_iter()
            .flat_map(|block| block.steps);
        let only_ours =
            |step: &blocks::Step| step.command.contains("$CONTAINER_") || step.command.contains("$XDG_RUNTIME");
        steps
            .filter(only_ours)
            .map(|step| {
                format!(
                    "{}:{}: a reader has no such variable: {}",
                    page.name, step.line, step.command
                )
            })
            .collect::<Vec<_>>()
    };
    none(all().iter().flat_map(uses).collect());
}

/// What a page shows of a line on a screen: behind it a reader has to scroll, and misses the option the chapter is about.
const WIDTH: usize = 96;

#[test]
fn commands_are_as_wide_as_a_page() {
    let too_wide = |page: &Page| {
        let steps = blocks::parse(&page.text)
            .unwrap_or_default()
            .into_iter()
            .flat_map(|block| block.steps);
        // With `$ ` or `> ` in front.
        let wide = steps.filter(|step| step.command.lines().any(|line| line.chars().count() + 2 > WIDTH));
        wide.map(|step| format!("{}:{}: break the line: {}", page.name, step.line, step.command))
            .collect::<Vec<_>>()
    };
    none(all().iter().flat_map(too_wide).collect());
}

#[test]
fn every_exercise_is_shown_and_compiled() {
    let listed = fs::read_to_string(folder().join("tests/exercises.rs")).unwrap();
    let pages = all();
    let mut complaints = Vec::new();
    for entry in fs::read_dir(folder().join("exercises")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !listed.contains(&format!("\"{name}\"")) {
            complaints.push(format!("exercises/{name} is not in tests/exercises.rs"));
        }
        // `02-median` belongs to the chapter whose file's name begins with `02`.
        let chapter = pages.iter().find(|page| page.name[..2] == name[..2]);
        if chapter.is_some_and(|page| !page.text.contains(&format!("../exercises/{name}/stub.rs:stub"))) {
            complaints.push(format!("its chapter does not include ../exercises/{name}/stub.rs:stub"));
        }
    }
    none(complaints);
}
