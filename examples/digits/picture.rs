//! The curves as a picture: training loss on the left, test accuracy on the right.

use std::error::Error;
use std::io::Write;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::network::Variant;
use crate::report::{Outcome, Spread};

/// The width and height of the picture in pixels.
const SIZE: (u32, u32) = (1400, 700);
/// How many times larger it is drawn before it is averaged down: the way to smooth edges, which plotters does not do.
const FINER: u32 = 2;

const TEXT: RGBColor = RGBColor(40, 40, 40);
const FAINT_TEXT: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(232, 232, 232);

/// The colours of Okabe and Ito, which colour-blind people can tell apart.
const fn colour(variant: Variant) -> RGBColor {
    match variant {
        Variant::Plain => RGBColor(90, 90, 90),
        Variant::BatchNorm => RGBColor(0, 114, 178),
        Variant::Dropout => RGBColor(230, 159, 0),
        Variant::BatchNormDropout => RGBColor(0, 158, 115),
        Variant::IndependentComponent => RGBColor(213, 94, 0),
        Variant::Noisy(..) => BLACK,
    }
}

/// Draws the curves and writes them as a PNG.
pub(crate) fn write_png(to: impl Write, results: &[Outcome], subtitle: &str) -> Result<(), Box<dyn Error>> {
    let (width, height) = (SIZE.0 * FINER, SIZE.1 * FINER);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    draw(BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), results, subtitle)?;

    let mut encoder = png::Encoder::new(to, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(&averaged(&pixels))?;
    Ok(())
}

/// The mean of each square of `FINER` by `FINER` pixels.
#[expect(clippy::cast_possible_truncation, reason = "the mean of bytes is a byte")]
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
#[expect(clippy::cast_possible_wrap, reason = "lengths are small")]
const fn px(length: u32) -> i32 {
    (length * FINER) as i32
}

fn font(size: u32, style: FontStyle, colour: RGBColor) -> TextStyle<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(size * FINER), style).color(&colour)
}

fn draw(area: Area<'_>, results: &[Outcome], subtitle: &str) -> Result<(), Box<dyn Error>> {
    for (style, bytes) in [(FontStyle::Normal, notosans::REGULAR_TTF), (FontStyle::Bold, notosans::BOLD_TTF)] {
        register_font("sans-serif", style, bytes).map_err(|_| "the font is not a font")?;
    }
    area.fill(&WHITE)?;
    let title = "Batch norm and dropout in a small network";
    area.draw(&Text::new(title, (px(32), px(22)), font(30, FontStyle::Bold, TEXT)))?;
    area.draw(&Text::new(subtitle, (px(32), px(60)), font(21, FontStyle::Normal, FAINT_TEXT)))?;

    let panels = area.margin(px(96), px(12), px(16), px(32)).split_evenly((1, 2));
    let [left, right] = &panels[..] else { return Err("the picture has two panels".into()) };

    let losses: Vec<Line> = results.iter().map(|outcome| Line::new(outcome.variant, &outcome.loss, 1.0)).collect();
    let least = losses.iter().flat_map(|line| &line.points).map(|point| point.mean).fold(f64::INFINITY, f64::min);
    let most = losses.iter().flat_map(|line| &line.points).map(|point| point.high).fold(0.0, f64::max);
    let loss_range = 0.7 * least.max(1e-9)..1.2 * most;
    panel(left, "training loss (dropout on)", loss_range.clone().log_scale(), loss_range, &losses, false)?;

    let accuracies: Vec<Line> =
        results.iter().map(|outcome| Line::new(outcome.variant, &outcome.accuracy, 100.0)).collect();
    let last = || accuracies.iter().filter_map(|line| line.points.last());
    // The first epochs are left out below: the difference between the variants is at the end.
    let low = last().map(|point| point.mean).fold(100.0, f64::min) - 8.0;
    let high = last().map(|point| point.high).fold(0.0, f64::max) + 1.0;
    let percent_range = low.max(0.0).floor()..high.min(100.0).ceil();
    panel(right, "test accuracy (%)", percent_range.clone(), percent_range, &accuracies, true)?;
    area.present()?;
    Ok(())
}

/// A curve and the band around it.
struct Line {
    variant: Variant,
    points: Vec<Point>,
}

struct Point {
    epoch: f64,
    mean: f64,
    /// The edges of the band: the standard error of the mean to each side.
    low: f64,
    high: f64,
}

impl Line {
    fn new(variant: Variant, spreads: &[Spread], unit: f64) -> Self {
        let point = |(epoch, &Spread { mean, error, .. }): (u32, &Spread)| Point {
            epoch: epoch.into(),
            mean: unit * mean,
            low: unit * (mean - error),
            high: unit * (mean + error),
        };
        Self { variant, points: (1..).zip(spreads).map(point).collect() }
    }

    /// The means as points of a chart, from where they first rise to `low`.
    fn means(&self, low: f64) -> Vec<(f64, f64)> {
        let mut means: Vec<_> = self.points.iter().map(|point| (point.epoch, point.mean)).collect();
        let below = means.iter().take_while(|&&(_, mean)| mean < low).count();
        let after = means.get(below).copied();
        if let (Some((_, to)), Some((epoch, from))) = (after, means[..below].last_mut()) {
            *epoch += (low - *from) / (to - *from);
            *from = low;
        }
        means.split_off(below.saturating_sub(1))
    }
}

fn panel<Y: AsRangedCoord<Value = f64>>(
    area: &Area<'_>,
    title: &str,
    axis: Y,
    range: Range<f64>,
    lines: &[Line],
    with_legend: bool,
) -> Result<(), Box<dyn Error>>
where
    Y::CoordDescType: ValueFormatter<f64>,
{
    let epochs = lines.iter().flat_map(|line| line.points.last()).map(|point| point.epoch).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_left(px(12))
        .margin_right(px(20))
        .x_label_area_size(px(50))
        .y_label_area_size(px(68))
        .build_cartesian_2d(1.0..epochs, axis)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(ShapeStyle::from(GRID).stroke_width(FINER))
        .axis_style(ShapeStyle::from(FAINT_TEXT).stroke_width(FINER))
        .label_style(font(20, FontStyle::Normal, TEXT))
        .axis_desc_style(font(21, FontStyle::Normal, TEXT))
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|epoch| format!("{epoch}"))
        .y_label_formatter(&|value| format!("{value}"))
        .x_desc("epoch")
        .y_desc(title)
        .draw()?;

    let inside = |value: f64| value.clamp(range.start, range.end);
    for line in lines {
        let upper = line.points.iter().map(|point| (point.epoch, inside(point.high)));
        let lower = line.points.iter().map(|point| (point.epoch, inside(point.low)));
        let band: Vec<_> = upper.chain(lower.rev()).collect();
        chart.draw_series([Polygon::new(band, colour(line.variant).mix(0.15))])?;
    }
    for line in lines {
        let style = ShapeStyle::from(colour(line.variant)).stroke_width(FINER * 5 / 2);
        let means = line.means(range.start).into_iter().map(|(epoch, mean)| (epoch, inside(mean)));
        chart
            .draw_series(LineSeries::new(means, style))?
            .label(format!("{}: {}", line.variant.name(), line.variant.order()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + px(28), y)], style));
    }
    if with_legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .margin(px(16))
            .legend_area_size(px(40))
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .label_font(font(20, FontStyle::Normal, TEXT))
            .draw()?;
    }
    Ok(())
}
