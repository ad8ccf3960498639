// Takes {"numbers": [...]} and answers their sum.
module.exports = (context, cb) => {
  let sum = 0;
  for (const number of context.numbers) {
    sum += number;
  }
  return cb({ sum });
};
