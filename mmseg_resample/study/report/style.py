"""The style sheet of the page of a report."""

CSS = """\
:root {
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  --ink: #24292f; --muted: #5d6670; --grid: #dfe3e8; --band: #c9d1d9; --page: #ffffff; --card: #f5f7f9;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #009e73; --series-3: #cc79a7; --series-4: #8a6d00;
  --series-5: #56b4e9;
  --good: #00734f; --none: #5d6670; --warn: #9a5b00;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e3e8ee; --muted: #9aa5b1; --grid: #303841; --band: #4a545f; --page: #12161b; --card: #1b2128;
    --series-0: #4fb0f0; --series-1: #ff8f4a; --series-2: #35cf9f; --series-3: #eba3cb; --series-4: #d8b93c;
    --series-5: #a5d8f6;
    --good: #4bd3a1; --none: #9aa5b1; --warn: #f0b35a;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1180px; padding: 1.2rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 var(--font); overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p, ul { margin: .5rem 0; max-width: 78ch; }
header p { color: var(--muted); }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; font-size: .9rem; margin: .8rem 0; }
a { color: var(--series-0); }
#verdict h2 { border: 0; margin-top: .8rem; }
.lead { font-size: 1.25rem; line-height: 1.35; font-weight: 600; max-width: 60ch; }
.finding { border-left: 4px solid var(--none); background: var(--card); border-radius: 0 6px 6px 0;
  padding: .5rem .9rem; margin: .6rem 0; break-inside: avoid; }
.finding p { margin: .15rem 0; }
.finding .label { display: inline-block; border: 1px solid currentColor; border-radius: 99px; padding: 0 .6rem;
  margin-right: .3rem; font-size: .8rem; font-weight: 600; color: var(--none); }
.finding.significant, .finding.negligible, .finding.equivalent { border-color: var(--good); }
.finding.significant .label, .finding.negligible .label, .finding.equivalent .label { color: var(--good); }
.finding.single, .finding.too_few, .finding.missing { border-color: var(--warn); }
.finding.single .label, .finding.too_few .label, .finding.missing .label { color: var(--warn); }
figure { margin: 1rem 0 1.6rem; }
figcaption, .note { color: var(--muted); font-size: .875em; max-width: 90ch; margin: .3rem 0 1.2rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: .8rem 1rem;
  align-items: start; }
.panels svg { width: 100%; max-width: 480px; height: auto; break-inside: avoid; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .2rem 0 .4rem; }
.legend i { font-style: normal; }
.table { overflow-x: auto; margin-top: .8rem; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem .3rem 0; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
th { font-weight: 600; color: var(--muted); vertical-align: bottom; white-space: normal; }
th.words, td.words { text-align: left; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--series-0); }
@media (max-width: 600px) {
  body { padding: .9rem .9rem 3rem; }
  h1 { font-size: 1.4rem; }
  .lead { font-size: 1.1rem; }
  table { font-size: .8rem; }
}
@media print {
  @page { size: A4; margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, figcaption a { display: none; }
  h2 { break-after: avoid; margin-top: 1.2rem; }
  h3, .legend { break-after: avoid; }
  .panels { grid-template-columns: repeat(2, 1fr); gap: .4rem; }
  .table { overflow: visible; }
  table { font-size: 7pt; width: 100%; }
  th, td { padding-right: .35rem; }
  td.words { white-space: normal; }
  tr { break-inside: avoid; }
  thead { display: table-header-group; }
  .finding { border: 1px solid var(--grid); border-left: 4px solid var(--none); }
  details::details-content { content-visibility: visible; height: auto; }
  summary { display: none; }
}
"""
"""Style sheet. Its colours are variables, which the figures use too."""
