// context holds the input; what is given to cb is the answer.
module.exports = (context, cb) => cb({ hello: context.name || "world" });
