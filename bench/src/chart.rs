//! Charts as SVG, with a transparent ground and colours for light and dark pages.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::growth::Growth;
use crate::results::{Comparison, Figures, number};
use crate::table::shown;

/// Text and axes; pages with a dark ground get [`DARK`] instead.
const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);

/// Lines behind the figures.
const FAINT: RGBColor = RGBColor(0xD0, 0xD7, 0xDE);

/// sekali.
const OURS: RGBColor = RGBColor(0xD9, 0x6C, 0x2C);

/// Everybody else.
const OTHERS: RGBColor = RGBColor(0x5B, 0x8D, 0xB8);

/// Attributes of an element give way to a style sheet, and an image has its own.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) {
[fill=\"#1F2328\"] { fill: #E6EDF3 }
[stroke=\"#1F2328\"] { stroke: #E6EDF3 }
[stroke=\"#D0D7DE\"] { stroke: #3D444D }
}</style>";

const FONT: &str = "sans-serif";
const TEXT: i32 = 14;
const WIDTH: u32 = 760;

/// Height of one bar with the space around it.
const BAR: i32 = 26;

/// Space for the names of bars.
const NAMES: i32 = 150;

/// Space for the figures behind bars.
const FIGURES: i32 = 90;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One group of bars: a title, and a name and a length for each.
struct Bars {
    title: &'static str,
    decimals: usize,
    lengths: Vec<(String, f64)>,
}

/// Draws the rates and latencies of a shape, of those peers that store something.
pub(crate) fn comparison(path: &Path, results: &Comparison, shape: &str) -> anyhow::Result<()> {
    let stores = |name: &str| results.figures(name, shape).iter().any(|figures| figures.stored.is_some());
    let bars = |of: fn(&Figures) -> f64| {
        let peers = results.peers.iter().filter(|peer| stores(&peer.name));
        let bars = peers.filter_map(|peer| Some((peer.name.clone(), results.median(&peer.name, shape, of)?)));
        bars.collect()
    };
    let groups = [
        Bars { title: "events/s (more is better)", decimals: 0, lengths: bars(Figures::rate) },
        Bars {
            title: "p99 of a request, ms (less is better)",
            decimals: 2,
            lengths: bars(|figures| figures.p99_ms),
        },
    ];
    let height = groups.iter().map(Bars::height).sum::<i32>();
    draw(path, u32::try_from(height)?, |area| {
        let mut top = 0;
        for group in &groups {
            group.draw(&area, top)?;
            top += group.height();
        }
        Ok(())
    })
}

impl Bars {
    /// With its title.
    fn height(&self) -> i32 {
        BAR * (i32::try_from(self.lengths.len()).unwrap_or_default() + 2)
    }

    fn draw(&self, area: &Area<'_>, top: i32) -> anyhow::Result<()> {
        text(area, self.title, (NAMES, top + BAR), HPos::Left)?;
        let longest = self.lengths.iter().map(|(_, length)| *length).fold(f64::MIN_POSITIVE, f64::max);
        let room = f64::from(i32::try_from(WIDTH)? - NAMES - FIGURES);
        let mut middle = top + BAR * 2;
        for (name, length) in &self.lengths {
            let colour = if name == "sekali" { OURS } else { OTHERS };
            #[expect(clippy::cast_possible_truncation, reason = "a part of the width of the chart")]
            let end = NAMES + (length / longest * room) as i32;
            let corners = [(NAMES, middle - BAR / 3), (end, middle + BAR / 3)];
            area.draw(&Rectangle::new(corners, colour.filled())).map_err(|error| anyhow!("{error}"))?;
            text(area, name, (NAMES - 8, middle), HPos::Right)?;
            text(area, &shown(Some(*length), self.decimals), (end + 6, middle), HPos::Left)?;
            middle += BAR;
        }
        Ok(())
    }
}

/// Draws rate and memory over the ids stored.
pub(crate) fn growth(path: &Path, growth: &Growth) -> anyhow::Result<()> {
    let points = |of: fn(&crate::growth::Grown) -> f64| {
        growth.steps.iter().map(|step| (number(step.ids) / 1e6, of(step))).collect::<Vec<_>>()
    };
    draw(path, 480, |area| {
        let (rates, memory) = area.split_vertically(240);
        line(&rates, "events/s (thousands) over millions of ids stored", &points(|step| step.rate / 1e3))?;
        let mebibytes = points(|step| number(step.rss_anon_bytes) / f64::from(1 << 20));
        line(&memory, "memory of the server (RssAnon, MiB) over millions of ids stored", &mebibytes)
    })
}

fn line(area: &Area<'_>, title: &str, points: &[(f64, f64)]) -> anyhow::Result<()> {
    let (right, top) =
        points.iter().fold((0.0, 0.0), |(x, y): (f64, f64), (px, py)| (x.max(*px), y.max(*py)));
    let style = (FONT, TEXT).into_font().color(&INK);
    let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
    let mut chart = ChartBuilder::on(area)
        .caption(title, style.clone())
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.1)
        .map_err(failed)?;
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(INK).bold_line_style(FAINT).light_line_style(TRANSPARENT).label_style(style);
    mesh.y_label_formatter(&|value| shown(Some(*value), 0)).draw().map_err(failed)?;
    let series = LineSeries::new(points.iter().copied(), OURS.stroke_width(2));
    chart.draw_series(series).map_err(failed)?;
    Ok(())
}

fn text(area: &Area<'_>, words: &str, at: (i32, i32), side: HPos) -> anyhow::Result<()> {
    let style = (FONT, TEXT).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style)).map_err(|error| anyhow!("{error}"))
}

/// Writes what is drawn, with colours for dark pages.
fn draw(
    path: &Path,
    height: u32,
    draw_on: impl FnOnce(Area<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut svg = String::new();
    draw_on(SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area())?;
    let end = svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1));
    svg.insert_str(end.context("the drawing is no SVG")?, DARK);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_that_a_dark_page_changes_is_in_the_drawing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("line.svg");
        draw(&path, 200, |area| line(&area, "a title", &[(0.0, 1.0), (1.0, 2.0)])).unwrap();
        let svg = fs::read_to_string(path).unwrap();
        let (sheet, drawing) = svg.split_once("</style>").unwrap();
        for selector in ["fill=\"#1F2328\"", "stroke=\"#1F2328\"", "stroke=\"#D0D7DE\""] {
            assert!(sheet.contains(selector), "{selector} is not in the style sheet");
            assert!(drawing.contains(selector), "{selector} is not in the drawing");
        }
    }

    #[test]
    fn the_longest_bar_leaves_room_for_its_figure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bars.svg");
        let lengths = vec![("sekali".to_owned(), 1_000_000.0), ("other".to_owned(), 10.0)];
        let group = Bars { title: "events/s", decimals: 0, lengths };
        draw(&path, u32::try_from(group.height()).unwrap(), |area| group.draw(&area, 0)).unwrap();
        let svg = fs::read_to_string(path).unwrap();
        let room = i32::try_from(WIDTH).unwrap() - NAMES - FIGURES;
        assert!(svg.contains(&format!("width=\"{room}\"")), "{svg}");
        assert!(svg.contains("1,000,000") && svg.contains("#D96C2C"), "{svg}");
    }
}
