"""How the page of a report looks, on screens light and dark, wide and narrow, and on paper."""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --raised: #f6f8fa; --ink: #1d2329; --soft: #59636e; --line: #d5dbe1;
  --link: #0a5cad; --green: #116b3a; --on-green: #dcf5e5; --red: #a5212a; --on-red: #fde5e5; --blue: #0a5189;
  --on-blue: #ddeefc; --teal: #0b6460; --on-teal: #d8f3f0; --amber: #7d4a00; --on-amber: #fdf0d2; }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1217; --raised: #171d24; --ink: #e4e9ee; --soft: #9aa6b2;
  --line: #303a44; --link: #79b8ff; --green: #7ee2a5; --on-green: #12351f; --red: #ffa3a3; --on-red: #431a1d;
  --blue: #8ec9ff; --on-blue: #122f4a; --teal: #79ddd5; --on-teal: #0e3432; --amber: #f3c46a; --on-amber: #3d2c0a; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
.frame { display: grid; grid-template-columns: minmax(0, 68rem); justify-content: center; gap: 0 2.5rem;
  padding: 0 1.1rem 4rem; }
header { padding: 2.2rem 0 .4rem; }
h1 { margin: 0; font-size: 1.1rem; font-weight: 600; color: var(--soft); letter-spacing: .02em; }
.question { margin: .3rem 0 1.1rem; font-size: clamp(1.35rem, 2.6vw + .6rem, 2rem); line-height: 1.25;
  font-weight: 650; text-wrap: balance; }
.summary { display: flex; flex-wrap: wrap; gap: .45rem; margin: 0; padding: 0; list-style: none; }
.summary li { padding: .18rem .7rem; border: 1px solid var(--line); border-radius: 99px; background: var(--raised);
  font-size: .87rem; }
h2 { margin: 2.8rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.4rem; }
h3 { margin: 2rem 0 .6rem; font-size: 1.1rem; overflow-wrap: anywhere; }
p, li { overflow-wrap: break-word; }
a { color: var(--link); }
code { padding: .1em .3em; border-radius: 4px; background: var(--raised); font-size: .9em; overflow-wrap: anywhere; }
nav { padding: 1.3rem 0 0; font-size: .87rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 0; padding: 0; list-style: none; }
nav a { color: var(--soft); text-decoration: none; }
nav a:hover, nav a:focus { color: var(--link); text-decoration: underline; }
.findings { display: grid; gap: .7rem; margin: 0 0 1.3rem; padding: 0; list-style: none; }
.findings li { padding: .75rem 1rem; border: 1px solid var(--line); border-left: 4px solid var(--tone, var(--line));
  border-radius: 8px; background: var(--raised); }
.findings p { margin: .35rem 0 0; }
.findings .lacks { color: var(--soft); font-size: .92rem; }
.findings b { margin-left: .45rem; }
.badge { display: inline-block; padding: .06rem .55rem; border-radius: 99px; background: var(--back, var(--raised));
  color: var(--tone, var(--soft)); font-size: .84rem; font-weight: 650; white-space: nowrap; }
.supported { --tone: var(--green); --back: var(--on-green); } .refuted { --tone: var(--red); --back: var(--on-red); }
.differs { --tone: var(--blue); --back: var(--on-blue); } .equivalent { --tone: var(--teal); --back: var(--on-teal); }
.undecided { --tone: var(--amber); --back: var(--on-amber); }
.scroll { overflow-x: auto; margin: .8rem 0 0; border: 1px solid var(--line); border-radius: 8px; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { width: 100%; border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { background: var(--raised); font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; } td.wide { min-width: 16rem; white-space: normal; }
.r { text-align: right; } tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover { background: color-mix(in srgb, var(--link) 7%, transparent); }
.note { margin: .5rem 0 1.2rem; color: var(--soft); font-size: .84rem; }
figure { margin: 1.4rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; padding: .5rem; border-radius: 8px;
  border: 1px solid var(--line); background: #fff; }
figcaption { margin-top: .45rem; color: var(--soft); font-size: .84rem; text-align: center; }
details { margin: 2.8rem 0 0; min-width: 0; border: 1px solid var(--line); border-radius: 8px; padding: .2rem 1rem; }
summary { cursor: pointer; padding: .5rem 0; } summary h2 { display: inline; margin: 0; padding: 0; border: 0; }
@media (min-width: 80rem) { .frame { grid-template-columns: 12.5rem minmax(0, 68rem); }
  nav { grid-row: 1 / span 2; position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto;
    padding: 2.4rem 0; } nav ul { display: grid; gap: .5rem; } header, main { grid-column: 2; } }
@media print { :root { color-scheme: light; font-size: 9.5pt; } nav { display: none; } figure img { max-height: 10cm; }
  .frame { display: block; padding: 0; } .scroll { overflow: visible; border: 0; } table { font-size: 7.5pt; }
  td, td.wide { white-space: normal; min-width: 0; padding: .25rem .35rem; } figure, .findings li, tr {
    break-inside: avoid; } h2, h3 { break-after: avoid; } details { border: 0; padding: 0; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
