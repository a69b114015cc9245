function trialerror(code), printf('ERROR %d\n', code); end
