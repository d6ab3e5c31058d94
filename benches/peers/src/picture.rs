//! The results as a picture: how many times as long as normdrop each peer takes.

use std::io::Write;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::peer::Result;
use crate::report::{Line, Name, find, peers, run, workloads};
use crate::workload::Op;

/// The width and height of the picture in pixels.
const SIZE: (u32, u32) = (2000, 760);
/// How many times larger it is drawn before it is averaged down: the way to smooth edges, which plotters does not do.
const FINER: u32 = 2;

const TEXT: RGBColor = RGBColor(40, 40, 40);
const FAINT_TEXT: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(232, 232, 232);

/// The colours of Okabe and Ito, which colour-blind people can tell apart.
const fn colour(name: Name) -> RGBColor {
    match name {
        Name::Normdrop | Name::NormdropGates => RGBColor(0, 0, 0),
        Name::Handwritten => RGBColor(120, 120, 120),
        Name::PytorchOld | Name::OnednnPlain => RGBColor(213, 94, 0),
        Name::Pytorch | Name::OnednnLast => RGBColor(230, 159, 0),
        Name::PytorchCompiled => RGBColor(204, 121, 167),
        Name::Jax => RGBColor(0, 114, 178),
        Name::Burn => RGBColor(0, 158, 115),
        Name::Candle | Name::OnednnBlocked => RGBColor(86, 180, 233),
    }
}

/// Draws the results and writes them as a PNG.
pub(crate) fn write_png(to: impl Write, lines: &[Line]) -> Result<()> {
    let (width, height) = (SIZE.0 * FINER, SIZE.1 * FINER);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    draw(BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), lines)?;

    let mut encoder = png::Encoder::new(to, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(&averaged(&pixels))?;
    Ok(())
}

/// The mean of each square of `FINER` by `FINER` pixels.
fn averaged(pixels: &[u8]) -> Vec<u8> {
    let finer = FINER as usize;
    let line = SIZE.0 as usize * finer * 3;
    let mut picture = Vec::with_capacity(pixels.len() / (finer * finer));
    for lines in pixels.chunks_exact(line * finer) {
        for x in (0..line).step_by(finer * 3) {
            for channel in 0..3 {
                let square = (0..finer * finer).map(|i| lines[i / finer * line + x + i % finer * 3 + channel]);
                picture.push((square.map(u32::from).sum::<u32>() / (FINER * FINER)) as u8);
            }
        }
    }
    picture
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A length of the finished picture, in the pixels that are drawn.
const fn px(length: u32) -> i32 {
    (length * FINER) as i32
}

fn font(size: u32, style: FontStyle, colour: RGBColor) -> TextStyle<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(size * FINER), style).color(&colour)
}

fn draw(area: Area<'_>, lines: &[Line]) -> Result<()> {
    for (style, bytes) in [(FontStyle::Normal, notosans::REGULAR_TTF), (FontStyle::Bold, notosans::BOLD_TTF)] {
        register_font("sans-serif", style, bytes).map_err(|_| "the font is not a font")?;
    }
    area.fill(&WHITE)?;
    let title = "Time as a multiple of normdrop's, forward and backward together";
    area.draw(&Text::new(title, (px(32), px(22)), font(30, FontStyle::Bold, TEXT)))?;
    if let Some(run) = run(lines) {
        let subtitle =
            format!("{}, one thread, {}, medians of {} rounds, {}", run.cpu, run.element.label(), run.rounds, run.date);
        area.draw(&Text::new(subtitle, (px(32), px(60)), font(21, FontStyle::Normal, FAINT_TEXT)))?;
    }
    let panels = area.margin(px(96), px(12), px(16), px(32)).split_evenly((1, 3));
    let [left, middle, right] = &panels[..] else { return Err("the picture has three panels".into()) };
    panel(left, "batch norm and dropout", lines, Op::Step, &[2.0, 5.0])?;
    panel(middle, "batch norm, ReLU and dropout", lines, Op::ReluStep, &[2.0, 5.0])?;
    panel(right, "batch norm alone", lines, Op::NormStep, &[])
}

/// One column a workload, one dot or, for oneDNN, one triangle a peer, on a logarithmic scale; dashes at the factors of `marks`.
fn panel(area: &Area<'_>, title: &str, lines: &[Line], op: Op, marks: &[f64]) -> Result<()> {
    let workloads = workloads(lines);
    let peers: Vec<Name> = peers(lines, op).into_iter().filter(|&name| name != Name::Normdrop).collect();
    let times = |workload, name| find(lines, workload, op, name).map(|it| it.times_normdrop);
    let all = || workloads.iter().flat_map(|(workload, _)| peers.iter().filter_map(|&name| times(workload, name)));
    let range = 0.8 * all().fold(1.0, f64::min)..1.4 * all().fold(2.0, f64::max);
    let end = workloads.len() as f64;
    // The legend has room of its own on the right.
    let edge = end * 1.45;

    let mut chart = ChartBuilder::on(area)
        .margin_left(px(12))
        .margin_right(px(20))
        .x_label_area_size(px(20))
        .y_label_area_size(px(68))
        .build_cartesian_2d(0.0..edge, range.clone().log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(ShapeStyle::from(GRID).stroke_width(FINER))
        .axis_style(ShapeStyle::from(FAINT_TEXT).stroke_width(FINER))
        .label_style(font(20, FontStyle::Normal, TEXT))
        .axis_desc_style(font(21, FontStyle::Normal, TEXT))
        .y_label_formatter(&|value| format!("{value}×"))
        .y_desc(title)
        .draw()?;
    let line = |height: f64| [(0.0, height), (edge, height)];
    chart.draw_series([PathElement::new(line(1.0), ShapeStyle::from(BLACK).stroke_width(FINER * 2))])?;
    for &mark in marks {
        let style = ShapeStyle::from(FAINT_TEXT).stroke_width(FINER);
        chart.draw_series(DashedLineSeries::new(line(mark), FINER * 6, FINER * 4, style))?;
    }
    let place = |i: usize| i as f64 + 0.5;
    for &name in &peers {
        let dots =
            workloads.iter().enumerate().filter_map(|(i, (workload, _))| Some((place(i), times(workload, name)?)));
        let style = colour(name).filled();
        if name.is_onednn() {
            chart
                .draw_series(dots.map(|at| TriangleMarker::new(at, px(8), style)))?
                .label(name.label())
                .legend(move |(x, y)| TriangleMarker::new((x + px(10), y), px(8), style));
        } else {
            chart
                .draw_series(dots.map(|at| Circle::new(at, px(7), style)))?
                .label(name.label())
                .legend(move |(x, y)| Circle::new((x + px(10), y), px(7), style));
        }
    }
    let letters = workloads.iter().enumerate().map(|(i, (workload, _))| {
        let at = (place(i), range.start);
        EmptyElement::at(at)
            + Text::new((*workload).to_owned(), (px(0) - px(5), px(8)), font(20, FontStyle::Normal, TEXT))
    });
    chart.draw_series(letters)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(px(10))
        .legend_area_size(px(24))
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(font(18, FontStyle::Normal, TEXT))
        .draw()?;
    Ok(())
}
