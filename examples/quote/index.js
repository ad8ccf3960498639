// Answers the quote that {"number": N} asks for, or any, wrapped to the width that the manifest sets.
const wrap = require("word-wrap");

const width = Number(process.env.QUOTE_WIDTH || 40);

const quotes = [
  ["Rob Pike", "Simplicity is complicated, but the clarity is worth the fight."],
  ["Edsger W. Dijkstra", "Simplicity is prerequisite for reliability."],
  ["C. A. R. Hoare", "Inside every large program is a small program struggling to get out."],
];

module.exports = async (context) => {
  const number = context.number ?? Math.floor(Math.random() * quotes.length);
  const quote = quotes[number];
  if (!quote) {
    throw new Error(`there is no quote ${number}; ask for 0 to ${quotes.length - 1}`);
  }
  const [author, text] = quote;
  return { author, lines: wrap(text, { width, indent: "", trim: true }).split("\n") };
};
